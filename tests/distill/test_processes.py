"""Several processes train as one does: with a copy of the student each, or with shards of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.append(str(Path(__file__).parent))

import one_of_several
import toy

from clear_attention.distill.config import Optimiser, StudentConfig, Training
from clear_attention.distill.workers.sharding import ASKED

SCRIPT = Path(__file__).with_name("one_of_several.py")
TRAINING = dataclasses.replace(toy.TRAINING, steps=5, ema_decay=0.9)
IN_PARTS = dataclasses.replace(TRAINING, accumulate=2)
POOLED = StudentConfig(radius=2, pool_factor=2)
LOW_RANK = StudentConfig(radius=2, pool_factor=2, rank=4)
PRODIGY = dataclasses.replace(toy.ADAMW, name="prodigy", learning_rate=1.0)


def train(
    folder: Path,
    count: int,
    shards: bool,
    training: Training,
    student: StudentConfig,
    optimiser: Optimiser = toy.ADAMW,
    stop_at: int = 0,
) -> tuple[list[int], str]:
    """Train in several processes and return their exit codes and what they said."""
    toy.data(folder / "data")  # before several ask for it at once
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parts = {"training": training, "student": student, "optimiser": optimiser}
    settings = {name: dataclasses.asdict(part) for name, part in parts.items()}
    arguments = [str(folder), json.dumps({**settings, "stop_at": stop_at})]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            env={
                **os.environ,
                ASKED: str(shards).lower(),
                "ACCELERATE_USE_CPU": "1",
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    return [rank.returncode for rank in ranks], "\n".join(said)


def agree(several: dict[str, Tensor], one: dict[str, Tensor]) -> None:
    assert several.keys() == one.keys()
    for name in one.keys() - {"held"}:
        if name.endswith("to_k.bias"):  # softmax hides it: Adam enlarges what is rounding only
            continue
        torch.testing.assert_close(several[name], one[name], rtol=1e-3, atol=1e-6, msg=name)
    assert max(float(t.abs().max()) for name, t in one.items() if "gradient/" in name) > 1e-4


@pytest.mark.parametrize(
    ("count", "shards", "training", "student"),
    [
        (2, False, TRAINING, POOLED),
        (2, False, IN_PARTS, LOW_RANK),
        (2, True, IN_PARTS, POOLED),
        (3, True, dataclasses.replace(TRAINING, batch=6), POOLED),  # 32 rows are 11, 11 and 10
    ],
    ids=["copies", "copies, in parts", "shards, in parts", "uneven shards"],
)
def test_several_processes_train_as_one_does(
    count: int, shards: bool, training: Training, student: StudentConfig, tmp_path: Path
):
    codes, said = train(tmp_path / "several", count, shards, training, student)
    assert codes == [0] * count, said
    several = load_file(tmp_path / "several" / one_of_several.RESULT)
    one = one_of_several.run(toy.trainer(tmp_path / "one", training, student))
    agree(several, one)
    held = int(several["held"]) / int(one["held"])
    assert held == pytest.approx(1 / count if shards else 1, rel=0.1)


def test_a_stopped_run_in_shards_goes_on_in_any_number_of_processes(tmp_path: Path):
    settings = (TRAINING, LOW_RANK, PRODIGY)
    for folder, stop_at in (("straight", 0), ("stopped", 4)):
        codes, said = train(tmp_path / folder, 2, True, *settings, stop_at=stop_at)
        assert codes == [0, 0], said
    shutil.copytree(tmp_path / "stopped", tmp_path / "alone")
    codes, said = train(tmp_path / "stopped", 2, True, *settings)
    assert codes == [0, 0], said
    straight, stopped = (
        load_file(tmp_path / folder / one_of_several.RESULT) for folder in ("straight", "stopped")
    )
    assert straight.keys() == stopped.keys()
    assert all(torch.equal(stopped[name], tensor) for name, tensor in straight.items())
    trainer = toy.trainer(tmp_path / "alone", TRAINING, LOW_RANK, optimiser=PRODIGY)
    agree(straight, one_of_several.run(trainer))
    assert trainer.step == 5


def test_prodigy_refuses_uneven_shards(tmp_path: Path):
    codes, said = train(tmp_path, 2, True, TRAINING, StudentConfig(radius=2, rank=3), PRODIGY)
    assert codes == [1, 1]
    assert "Prodigy needs rows that divide by the 2 processes, got 3" in said
