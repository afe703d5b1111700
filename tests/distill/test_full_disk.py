"""A disk that takes no more: each kind of write is a sentence, and what was there stays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from disk import full_disk

sys.path.append(str(Path(__file__).parent))

import toy

from clear_attention.atomic_files import NotWritten, write_text_whole
from clear_attention.distill import log
from clear_attention.distill.data.shards import MANIFEST, ShardFolder
from clear_attention.families.flux import NAMES
from clear_attention.families.names import ModelSize
from clear_attention.weights import checkpoint, low_rank

MINE = "clear_local_2.safetensors"
LOW_RANK = "clear_local_2_rank_2.safetensors"
TOY_SIZE = ModelSize(toy.HIDDEN, {"double": 1, "single": 1}, 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with every kind of file in it."""
    toy.trainer(tmp_path).run()
    write_checkpoint(tmp_path)
    write_low_rank(tmp_path)
    return tmp_path


def save_state(folder: Path) -> None:
    trainer = toy.trainer(folder)
    trainer.resume()
    trainer.save()


def write_checkpoint(folder: Path) -> None:
    shapes = {".weight": (toy.HIDDEN, toy.HIDDEN), ".bias": (toy.HIDDEN,)}
    tensors = {
        name: torch.zeros(shapes[name[name.rindex(".") :]]) for name in NAMES.names(TOY_SIZE)
    }
    checkpoint.save(folder / MINE, tensors, radius=2)


def write_low_rank(folder: Path) -> None:
    layers = {name.rpartition(".")[0] for name in NAMES.names(TOY_SIZE)}
    tensors = {}
    for layer in layers:
        tensors[f"transformer.{layer}.lora_A.weight"] = torch.zeros(2, toy.HIDDEN)
        tensors[f"transformer.{layer}.lora_B.weight"] = torch.zeros(toy.HIDDEN, 2)
    low_rank.save(folder / LOW_RANK, tensors, radius=2, family="flux")


WRITES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "state": ("run/state-0000012.safetensors", save_state),
    "shard": (
        "data/00002.safetensors",
        lambda folder: ShardFolder(folder / "data").add(toy.samples(2)),
    ),
    "text": (
        "data/texts/*/*.safetensors",
        lambda folder: ShardFolder(folder / "data").add(toy.samples(2, seed=9)),
    ),
    "row of the log": (
        f"run/{log.NAME}",
        lambda folder: log.append_whole(folder / "run" / log.NAME, "13,train,loss,0.5\n" * 9),
    ),
    "log": (f"run/{log.NAME}", lambda folder: log.Log(folder / "run", 12)),
    "checkpoint": (MINE, write_checkpoint),
    "low rank": (LOW_RANK, write_low_rank),
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", WRITES)
def test_a_full_disk_is_a_sentence_and_changes_no_file(kind: str, run: Path):
    name, write = WRITES[kind]
    before = contents(run)
    with pytest.raises(NotWritten) as error, full_disk():
        write(run)
    path, found, _ = str(error.value).partition(" cannot be written, ")
    assert found and fnmatch(path, str(run / name))
    assert "\n" not in str(error.value)
    boards = {path for path in contents(run) if "tensorboard" in path.parts}
    assert {p: c for p, c in contents(run).items() if p not in boards} == {
        p: c for p, c in before.items() if p not in boards
    }
    assert not list(run.rglob("*.part"))
    write(run)  # with space again


def test_a_manifest_that_cannot_be_written_lists_what_it_did(run: Path):
    data = ShardFolder(run / "data")
    with pytest.raises(NotWritten, match=MANIFEST), full_disk():
        write_text_whole(data.folder / MANIFEST, "x" * 100)
    assert len(ShardFolder(run / "data")) == len(data)
