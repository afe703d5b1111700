"""CLEAR Compare in a real ComfyUI: as a node of a graph, and as a command without the server."""

from __future__ import annotations

from .pictures import example, node, pixels, prompt_of, saved_report

RUN = """
output = "out"
base_directory = '{base}'
sheets = 1

[sampling]
prompts = "prompts.txt"
count = 2
width = 64
height = 48
steps = 2

[loaders]
model = {{ node = "CLEARDemoUNETLoader" }}
clip = {{ node = "CLEARDemoDualCLIPLoader" }}
vae = {{ node = "CLEARTestVAELoader", vae_name = "clear_demo_vae.safetensors" }}

[[candidates]]
file = "clear_demo_local_4.safetensors"

[[candidates]]
radius = 2
"""


def test_the_example_saves_its_sheet_and_shows_its_table(server):
    workflow = example("15 Compare CLEAR with full attention", shrink=16)
    node(workflow, "CLEARCompare")["widgets_values"][3] = 2  # steps
    prompt = prompt_of(server, workflow)
    entry = server.run(prompt)
    (path,) = server.images(entry)
    height, width, _ = pixels(path).shape
    assert width > height and pixels(path).std() > 20
    assert "radius 8" in saved_report(path)
    shown = [text for output in entry["outputs"].values() for text in output.get("text", ())]
    (table,) = [text for text in shown if "velocity error" in text]
    assert "clear_model, r = 8" in table and "another seed" in table
    assert "2 pictures of 64 x 64 pixels" in table


def test_the_command_writes_rows_a_report_and_sheets(server, commands, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red apple\na green tree\na blue sea\n", "utf-8")
    (tmp_path / "run.toml").write_text(RUN.format(base=server.base), encoding="utf-8")
    done = commands.start(
        *("-m", "clear_attention.compare", tmp_path / "run.toml"),
        *("--comfyui", server.host, "--cpu"),
        output=tmp_path / "output",
        folder=tmp_path,
    )
    assert done.wait() == 0, done.errors
    rows = (tmp_path / "out" / "rows.csv").read_text("utf-8").splitlines()
    assert len(rows) == 1 + 2 * 4  # the teacher, another seed and two candidates
    report = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "2 prompts of `prompts.txt`" in report
    assert "| clear_demo_local_4.safetensors |" in report and "| r = 2 " in report
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["prompt-0000.png"]
    assert "prompts: 100%" in done.errors  # with the time that is left
