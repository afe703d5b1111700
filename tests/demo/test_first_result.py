"""The way to the first picture: what its page states, and the pack that stands in for FLUX's."""

from __future__ import annotations

from fractions import Fraction

from pack import EXAMPLES, WORKFLOWS

from demo.page import first_result, stand_in
from demo.page.first_result import Stage
from tools import workflows

FIRST = workflows.load(WORKFLOWS / f"{EXAMPLES[0]}.json")


def test_the_table_has_all_stages_and_their_sum():
    stages = [Stage("*A*", 1, 0, 0.25), Stage("*B*", 2, 3, 1.5)]
    rows = first_result.table(stages).splitlines()[2:]
    assert rows == [
        "| *A* | 1 | 0.2 |",
        "| *B*, 3 notches of the wheel | 2 | 1.5 |",
        "| **all of it**, 3 notches of the wheel | 3 | 1.8 |",
    ]


def test_the_page_of_workflows_has_the_table_of_the_first_workflow():
    start, end = first_result.MARKS
    _, _, rest = first_result.PAGE.read_text(encoding="utf-8").partition(start)
    written, mark, _ = rest.partition(end)
    assert mark and "| What is clicked | Clicks | Seconds |" in written
    assert f"| *{EXAMPLES[0]}* | 1 |" in written and "**all of it**" in written
    assert all(f"`{file}`" in written for file in first_result.downloads(FIRST))


def test_the_size_is_stated_for_the_files_that_a_template_of_comfyui_needs_too():
    files = first_result.downloads(FIRST)
    assert len(files) == 5 and files[0] == "diffusion_models/flux1-dev.safetensors"
    known = [node for node in FIRST["nodes"] if node["type"] != "CLEARLoader"]
    inside = {"nodes": [], "definitions": {"subgraphs": [{"nodes": known}]}}
    index = [{"templates": [{"name": first_result.ALIKE, "size": 34_000_000_000}]}]
    size = first_result.known_gb(files, inside, index)
    assert size == (34.0, ["clear/clear_local_16.safetensors"])
    assert "5 files" in first_result.needed(files, size)
    assert "34.0 GB" in first_result.needed(files, size)


def test_no_size_is_stated_where_the_template_needs_another_file():
    files = first_result.downloads(FIRST)
    index = [{"templates": [{"name": first_result.ALIKE, "size": 34_000_000_000}]}]
    size = first_result.known_gb(files[1:], FIRST, index)
    assert size == (0.0, files[1:])
    assert "GB" not in first_result.needed(files[1:], size)


def test_what_stands_in_is_named():
    demo = workflows.with_demo_models(FIRST, Fraction(8, 3))
    pairs = dict(stand_in.differences(FIRST, demo))
    assert pairs["`UNETLoader`"] == "CLEARDemoUNETLoader"
    assert pairs["`clear_local_16.safetensors` in `CLEARLoader`"].startswith("clear_demo")
    assert pairs["`2048` in `EmptySD3LatentImage`"] == "768"
    text = first_result.stood_in(stand_in.differences(FIRST, demo))
    assert text.count("`768` for `2048` in `EmptySD3LatentImage`") == 1


def test_the_pack_that_stands_in_has_the_workflows_names_and_the_demos_models(tmp_path):
    for _ in range(2):  # a second time over the first
        stand_in.write_pack(tmp_path / "pack", Fraction(8, 3))
    folder = tmp_path / "pack" / "workflows"
    assert sorted(path.stem for path in folder.glob("*.json")) == EXAMPLES
    assert sorted(path.stem for path in folder.glob("*.jpg")) == EXAMPLES
    written = workflows.load(folder / f"{EXAMPLES[0]}.json")
    assert written == workflows.with_demo_models(FIRST, Fraction(8, 3))
    assert (tmp_path / "pack" / "nodes" / "__init__.py").is_file()
    assert (tmp_path / "pack" / "__init__.py").is_file()
