"""Several processes train as one does: with a copy of the student each, or with shards of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.append(str(Path(__file__).parent))

import one_of_several
import toy
from fork_server import ForkServer
from replay import loss_noise, replay

from clear_attention.distill import state
from clear_attention.distill.config import Optimiser, StudentConfig, Training
from clear_attention.distill.workers.sharding import ASKED

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
# What training imports where it first needs it comes last.
IMPORTED = "one_of_several", "torch.distributed.fsdp", "torch._dynamo", "torch.onnx"
TRAINING = dataclasses.replace(toy.TRAINING, steps=5, ema_decay=0.9)
IN_PARTS = dataclasses.replace(TRAINING, accumulate=2)
POOLED = StudentConfig(radius=2, pool_factor=2)
LOW_RANK = StudentConfig(radius=2, pool_factor=2, rank=4)
PRODIGY = dataclasses.replace(toy.ADAMW, name="prodigy", learning_rate=1.0)


@dataclass(frozen=True)
class Run:
    """One training of a launch.

    Attributes:
        name: Of its result.
        training: Its length and batches.
        student: What is trained.
        optimiser: How.
        folder: Where its states lie, if two runs share them.
        stop_at: Step to stop at; 0 goes to the end.
    """

    name: str
    training: Training
    student: StudentConfig
    optimiser: Optimiser = toy.ADAMW
    folder: str = ""
    stop_at: int = 0


@dataclass(frozen=True)
class Launch:
    """Processes that do some runs one after the other: starting them takes longest."""

    count: int
    shards: bool
    runs: tuple[Run, ...]


LAUNCHES = {
    "copies": Launch(
        2, False, (Run("copies", TRAINING, POOLED), Run("copies, in parts", IN_PARTS, LOW_RANK))
    ),
    "shards": Launch(
        2,
        True,
        (
            Run("shards, in parts", IN_PARTS, POOLED),
            Run("straight", TRAINING, LOW_RANK, PRODIGY),
            Run("stopped", TRAINING, LOW_RANK, PRODIGY, folder="stopped", stop_at=4),
            Run("resumed", TRAINING, LOW_RANK, PRODIGY, folder="stopped"),
            Run("refused", TRAINING, StudentConfig(radius=2, rank=3), PRODIGY),
        ),
    ),
    "uneven shards": Launch(  # 32 rows are 11, 11 and 10
        3, True, (Run("uneven shards", dataclasses.replace(TRAINING, batch=6), POOLED),)
    ),
}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Start the processes of a launch when a test first asks, and return the folder of results."""
    folders: dict[str, Path] = {}
    with ForkServer(*IMPORTED, path=[HERE, HERE.parent, HERE.parents[1]]) as server:

        def launched(name: str) -> Path:
            if name not in folders:
                folder = tmp_path_factory.mktemp("launch")
                start(server, folder, LAUNCHES[name])
                folders[name] = folder
            return folders[name]

        yield launched


def start(server: ForkServer, folder: Path, launch: Launch) -> None:
    """Train in several processes, and wait for them."""
    for run in launch.runs:
        toy.data(folder / (run.folder or run.name) / "data")  # before several ask for it at once
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runs = json.dumps([dataclasses.asdict(run) for run in launch.runs])
    ranks = [
        server.start(
            HERE / "one_of_several.py",
            folder,
            runs,
            output=folder / f"output.{rank}",
            environment={
                ASKED: str(launch.shards).lower(),
                "ACCELERATE_USE_CPU": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(launch.count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(launch.count)
    ]
    failed = [rank.errors for rank in ranks if rank.wait() != 0]
    assert not failed, "\n".join(failed)


def agree(several: dict[str, Tensor], folder: Path, run: Run, at: int = 0) -> None:
    """Compare what several processes recorded with one process that goes along.

    Args:
        several: Their record.
        folder: For the one process, perhaps with a state to begin from.
        run: The settings.
        at: Step where the one process begins.
    """
    settings = (run.training, run.student)
    one, exact = (toy.trainer(folder, *settings, optimiser=run.optimiser) for _ in range(2))
    assert one.resume() == at
    replay(several, one, exact)
    with one.result():
        alone = one_of_several.losses_of_result(one)
    for name, loss in {**alone, **one_of_several.held_out_losses(one)}.items():
        assert abs(float(several[name] - loss)) <= loss_noise(float(loss)), name


@pytest.mark.parametrize(
    ("launch", "name"),
    [
        ("copies", "copies"),
        ("copies", "copies, in parts"),
        ("shards", "shards, in parts"),
        ("uneven shards", "uneven shards"),
    ],
    ids=["copies", "copies, in parts", "shards, in parts", "uneven shards"],
)
def test_several_processes_train_as_one_does(launch: str, name: str, launched, tmp_path: Path):
    several = load_file(launched(launch) / f"{name}.safetensors")
    (run,) = (run for run in LAUNCHES[launch].runs if run.name == name)
    agree(several, tmp_path, run)
    trained = sum(tensor.numel() for name, tensor in several.items() if name.startswith("0/weight"))
    held = int(several["held"]) / trained
    share = 1 / LAUNCHES[launch].count if LAUNCHES[launch].shards else 1
    assert held == pytest.approx(share, rel=0.1)


def test_a_stopped_run_in_shards_goes_on_in_any_number_of_processes(launched, tmp_path: Path):
    folder = launched("shards")
    straight, resumed = (
        load_file(folder / f"{name}.safetensors") for name in ("straight", "resumed")
    )
    assert any(name.startswith("5/gradient/") for name in resumed)
    assert not any(name.startswith("4/gradient/") for name in resumed)
    assert all(torch.equal(straight[name], tensor) for name, tensor in resumed.items())
    alone = tmp_path / "alone"
    shutil.copytree(folder / "stopped", alone)
    state.states(alone / "run")[-1].unlink()  # of the end; the one before is where it stopped
    (run,) = (run for run in LAUNCHES["shards"].runs if run.name == "straight")
    agree(straight, alone, run, at=4)


def test_prodigy_refuses_uneven_shards(launched):
    reasons = [launched("shards") / f"refused.{rank}.txt" for rank in range(2)]
    for reason in reasons:
        text = reason.read_text(encoding="utf-8")
        assert "Prodigy needs rows that divide by the 2 processes, got 3" in text
