"""Distilling in a real ComfyUI: as a node of a graph, and as a command without the server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import Fork
from narrow_vae.places import LOADER
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from clear_attention.distill import log

from .pictures import node, pixels, prompt_of, text_to_image, without_clear

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PROMPTS = "a red apple\na green tree\na blue sea"
SETTINGS = dict(
    **dict(radius=2, pool_factor=0, rank=0, steps=2, batch=2, samples=2, width=128, height=128),
    **dict(optimiser="adamw", learning_rate=1e-3, guidance=3.5, cfg=1.0, seed=0),
)

RUN = """
output = "clear.safetensors"
folder = "run"
base_directory = '{base}'

[loaders]
model = {{ node = "CLEARDemoUNETLoader" }}
clip = {{ node = "CLEARDemoDualCLIPLoader" }}
vae = {{ node = "CLEARTestVAELoader", vae_name = "clear_demo_vae.safetensors" }}

[student]
radius = 2

[generation]
prompts = "prompts.txt"
samples = 4
held_out = 1
held_out_samples = 2
sizes_px = [[64, 64]]
steps = 2

[training]
steps = {steps}
batch = 2
log_every = 1
precision = "float32"

[optimiser]
name = "adamw"
learning_rate = 1e-3
"""

RECOMPUTED = RUN.replace("[training]", "shard = 1\n\n[training]\ngradient_checkpointing = true")
TWO = (0, 1)


def distill(server, name: str, model: str = "CLEARDemoUNETLoader", **changes: Any) -> dict:
    """Return a prompt that distils the demo's model, and shows what comes out."""
    painting = prompt_of(server, text_to_image())
    found = {entry["class_type"]: (at, entry) for at, entry in painting.items()}
    kinds = ("CLEARDemoUNETLoader", "CLEARDemoDualCLIPLoader", LOADER, "CLEARLoader")
    given = {
        "model": [found[model][0], 0],
        "clip": [found["CLEARDemoDualCLIPLoader"][0], 0],
        "vae": [found[LOADER][0], 0],
    }
    inputs = {**given, "name": name, "prompts": PROMPTS, **SETTINGS, **changes}
    save = {"class_type": "SaveImage"}
    return {
        **{at: entry for at, entry in found.values() if entry["class_type"] in kinds},
        "distil": {"class_type": "CLEARDistill", "inputs": inputs},
        "name": {"class_type": "PreviewAny", "inputs": {"source": ["distil", 0]}},
        "losses": {**save, "inputs": {"images": ["distil", 1], "filename_prefix": "losses"}},
        "rows": {**save, "inputs": {"images": ["distil", 2], "filename_prefix": "rows"}},
    }


def from_folder(server, name: str, **changes: Any) -> dict:
    """Return a prompt that distils from a folder of two pictures, none of them for validation."""
    folder = server.base / "input" / "captioned"
    folder.mkdir(exist_ok=True)
    with Image.open(server.base / "input" / "example.png") as image:
        for at in range(2):
            image.crop((at, at, at + 128, at + 128)).save(folder / f"{at}.png")
            (folder / f"{at}.txt").write_text("a red apple", encoding="utf-8")
    prompt = distill(server, name, prompts="", pictures_folder="captioned", **changes)
    del prompt["rows"]  # shows pictures of a validation
    return prompt


def picture(server, workflow) -> np.ndarray:
    return pixels(server.images(server.run(prompt_of(server, workflow)))[0])


@pytest.mark.parametrize("rank", [0, 4], ids=["whole", "low rank"])
def test_the_node_writes_a_file_that_paints_and_leaves_the_model_as_it_was(server, rank):
    before = picture(server, without_clear(text_to_image(seed=rank)))
    steps: list[tuple[str, int, int]] = []
    count = 2 if rank else 1  # each is followed by a validation, where there is any
    made = "captions" if rank else "mine"
    prompt = (from_folder if rank else distill)(server, made, rank=rank, steps=count)
    entry = server.run(prompt, on_progress=lambda *step: steps.append(step))
    (name,) = entry["outputs"]["name"]["text"]
    assert name == (f"{made}_local_2_rank_4.safetensors" if rank else f"{made}_local_2.safetensors")
    assert steps[-1] == ("distil", count, count)
    shapes = {path.name.split("_")[0]: pixels(path).shape for path in server.images(entry)}
    rows = (2 * 128 + 4, 4 * 128 + 3 * 4, 3)
    assert shapes.get("rows") == (None if rank else rows)
    assert shapes["losses"][1] > rows[1]

    files = server.object_info("CLEARLoader")["input"]["required"]["clear_name"][1]["options"]
    assert name in files
    with safe_open(server.base / "models" / "clear" / name, framework="pt") as file:
        facts = file.metadata()
    assert (facts["clear.radius"], facts["clear.base"]) == ("2", made)
    local = text_to_image(seed=rank)
    node(local, "CLEARLoader")["widgets_values"][0] = name
    assert (picture(server, local) != before).any()
    other = without_clear(text_to_image(seed=rank + 100))  # or the next would come from a cache
    assert (picture(server, other) != before).any()
    np.testing.assert_array_equal(picture(server, without_clear(text_to_image(seed=rank))), before)


def test_an_interrupted_node_goes_on_when_it_is_queued_again(server):
    from tools.server import ServerError

    # With the pictures that were encoded already, if the tests above have run.
    prompt = from_folder(server, "captions", radius=3, steps=6)

    def interrupt(_: str, done: int, of: int) -> None:
        if (done, of) == (1, 6):
            server.interrupt()

    with pytest.raises(ServerError, match="was interrupted"):
        server.run(prompt, on_progress=interrupt)
    folder = server.base / "output" / "clear_distill" / "captions" / "local_3"
    (kept,) = folder.glob("state-*")
    done = int(kept.stem.removeprefix("state-"))
    assert 1 <= done < 6
    steps: list[int] = []
    server.run(prompt, on_progress=lambda _, step, of: steps.append(step) if of == 6 else None)
    assert min(steps) > done
    assert max(steps) == 6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompts": " \n "}, "The input prompts must have a prompt on at least one line"),
        ({"name": "../mine"}, "The name must be of letters, digits, _ and - only"),
        ({"model": "CLEARLoader"}, "The model to distil has a CLEAR window already"),
    ],
    ids=["no prompts", "bad name", "local model"],
)
def test_a_mistake_is_one_sentence_on_the_node(server, changes, sentence):
    from tools.server import ServerError

    with pytest.raises(ServerError) as error:
        server.run(distill(server, **{"name": "wrong", **changes}))
    assert str(error.value).splitlines()[0].startswith(f"CLEARDistill (node distil): {sentence}")


@pytest.fixture
def command(server, commands, tmp_path):
    """Start the command in a folder of its own: ``command(steps)``; its run is in there."""
    (tmp_path / "prompts.txt").write_text(PROMPTS, encoding="utf-8")

    def start(
        steps: int = 6, settings: str = RUN, launcher=(), bare: Path | None = None, **more: str
    ):
        """Start a fork, or a bare process in a folder, or ranks as a launcher would."""
        run = tmp_path / "run.toml"
        run.write_text(settings.format(base=server.base, steps=steps), encoding="utf-8")
        arguments = ["-m", "clear_attention.distill", run, "--comfyui", server.host, "--cpu"]
        if bare:
            return subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=bare,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return Together(
            [
                commands.start(
                    *arguments,
                    output=tmp_path / f"output.{rank}",
                    folder=tmp_path,
                    environment={**more, **(rank_of(rank, port) if launcher else {})},
                )
                for rank in launcher or (0,)
            ]
        )

    return start


def rank_of(rank: int, port: int) -> dict[str, str]:
    """Return what a launcher of two tells each."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **place}


@dataclass
class Together:
    """Processes of one run, as the one that would have launched them."""

    forks: list[Fork]
    returncode: int | None = None

    def poll(self) -> int | None:
        return self.forks[0].poll()

    def send_signal(self, number: int) -> None:
        for fork in self.forks:
            fork.send_signal(number)

    def communicate(self) -> tuple[str, None]:
        text = "".join(part for fork in self.forks for part in fork.communicate())
        self.returncode = max(abs(fork.wait()) for fork in self.forks)
        return text, None


def wait_for_steps(process, log: Path, count: int) -> None:
    while process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) > 6 * count:
            return
        time.sleep(0.05)


def test_the_command_stops_when_told_to_and_goes_on(command, tmp_path):
    process = command(steps=2000)
    wait_for_steps(process, tmp_path / "run" / "log.csv", 3)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate()
    assert process.returncode == 1, text
    assert "Stopped; the same command goes on." in text
    (kept,) = (tmp_path / "run").glob("state-*")
    done = int(kept.stem.removeprefix("state-"))
    process = command(steps=done + 2, bare=ROOT)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert f"training from step {done} to {done + 2}" in text
    assert (tmp_path / "clear.safetensors").exists()
    assert (tmp_path / "run" / f"step-{done + 2:07}.png").exists()


def test_two_processes_paint_and_train_what_one_does(command, tmp_path):
    written, first, painted = {}, {}, {}
    data = tmp_path / "run" / "data"
    for launcher in (TWO, ()):
        process = command(settings=RECOMPUTED, launcher=launcher, ACCELERATE_USE_FSDP="true")
        text, _ = process.communicate()
        assert process.returncode == 0, text
        assert text.count("Written: ") == 1
        assert text.count("of 2 has done its share of the data, and waits") == (
            2 if launcher else 0
        )
        files = (path for path in data.rglob("*") if path.is_file())
        painted[launcher] = {path.relative_to(data): path.read_bytes() for path in files}
        shutil.rmtree(data)
        written[launcher] = load_file(tmp_path / "clear.safetensors")
        first[launcher] = {
            name: value
            for step, kind, name, value in log.read(tmp_path / "run")
            if (step, kind) == (1, "train")
        }
        for state in (tmp_path / "run").glob("state-*"):
            state.unlink()
    assert painted[TWO] == painted[()]
    assert sum(path.match("train/*.safetensors") for path in painted[TWO]) == 4
    # One process, or two with a student in shards: the same losses and the same gradient, but for
    # the rounding of outputs, about 1e-7, whose differences of about 1e-2 are squared.
    assert first[TWO].keys() >= {"loss", "prediction", "gradient"}
    assert first[TWO] == pytest.approx(first[()], rel=1e-4)
    for name, tensor in written[()].items():
        if name.endswith("weight"):
            assert_hardly_any_differs(written[TWO][name], tensor)


def assert_hardly_any_differs(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare weights after 6 steps of Adam, which makes a whole step of any gradient.

    Of gradients that are normally distributed, one in 100,000 is smaller than its rounding, 1e-6
    of the largest.
    """
    difference = (actual.float() - expected.float()).abs()
    differs = difference > 1e-4 + 1e-2 * expected.float().abs()
    assert differs.float().mean() <= 1e-3
    assert difference.max() <= 2 * 6 * 1e-3 + torch.finfo(actual.dtype).eps * expected.abs().max()
