"""8-bit AdamW: what is missing is named, and a run goes on from its bytes to the bit."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).parents[1]))

import eight_bit
import toy

from clear_attention.distill import state
from clear_attention.distill.ahead.memory import KEPT, MASTER
from clear_attention.distill.config import ConfigError, Optimiser
from clear_attention.distill.updates.optimisers import make_optimiser
from clear_attention.distill.workers.sharding import ASKED, require_even

ADAMW = dataclasses.replace(toy.ADAMW, name="adamw8bit")


@pytest.fixture
def wide(monkeypatch):
    """The toy with matrices large enough for 8 bits, and biases that are too small for it."""
    eight_bit.provide(monkeypatch)
    monkeypatch.setattr(toy, "HIDDEN", 64)
    size = dataclasses.replace(toy.Toy.size, hidden=64)
    monkeypatch.setattr(toy.Toy, "size", size)


def memory_of(trainer) -> dict[str, torch.Tensor]:
    memory, _ = state.of_optimiser(trainer.optimiser, trainer.parameters)
    return {
        f"{name}/{e}": tensor for name, entries in memory.items() for e, tensor in entries.items()
    }


def test_without_its_package_the_command_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match=r"^The optimiser adamw8bit needs bitsandbytes: python"):
        make_optimiser([torch.zeros(1)], ADAMW)


def test_a_stopped_run_goes_on_from_the_same_bytes_to_the_same_weights(wide, tmp_path: Path):
    straight = toy.trainer(tmp_path / "straight", optimiser=ADAMW)
    assert straight.run()
    first = toy.trainer(tmp_path / "stopped", optimiser=ADAMW)
    assert not first.run(should_stop=lambda: first.step == 5)
    second = toy.trainer(tmp_path / "stopped", optimiser=ADAMW)
    assert second.resume() == 5
    before, after = memory_of(first), memory_of(second)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    kinds = {
        name.rpartition("/")[2]: tensor.dtype for name, tensor in after.items() if "weight" in name
    }
    assert kinds["state1"] == kinds["state2"] == torch.uint8
    assert {"qmap1", "qmap2", "absmax1", "absmax2"} < kinds.keys()
    assert all(t.dtype == torch.float32 for name, t in after.items() if "bias" in name)
    assert second.run()
    for name, parameter in straight.parameters.items():
        assert torch.equal(parameter, second.parameters[name]), name
    assert all(torch.equal(t, memory_of(second)[name]) for name, t in memory_of(straight).items())


def test_it_brings_the_student_closer_to_its_teacher(wide, tmp_path: Path):
    trainer = toy.trainer(tmp_path, dataclasses.replace(toy.TRAINING, steps=60), optimiser=ADAMW)
    before = trainer.validate()["prediction"]
    assert trainer.run()
    assert trainer.validate()["prediction"] < 0.8 * before


@pytest.mark.parametrize("lacking", ["qmap1", "absmax2", "state1"])
def test_a_state_that_lacks_a_part_of_the_memory_is_refused(lacking, wide, tmp_path: Path):
    trainer = toy.trainer(tmp_path, optimiser=ADAMW)
    trainer.run(should_stop=lambda: trainer.step == 1)
    (path,) = state.states(tmp_path / "run")
    facts = state.load(path)
    name = next(name for name in facts.memory if "weight" in name)
    kept = {entry: t for entry, t in facts.memory[name].items() if entry != lacking}
    broken = dataclasses.replace(facts, memory={**facts.memory, name: kept})
    state.save(tmp_path / "run", broken, 1)
    with pytest.raises(ValueError, match="holds no memory of this optimiser"):
        toy.trainer(tmp_path, optimiser=ADAMW).resume()


def test_tensors_that_share_memory_are_written_each(tmp_path: Path):
    from clear_attention.distill.data.tensor_files import write_tensors

    table = torch.arange(4.0)
    with pytest.raises(RuntimeError, match="share memory"):
        save_file({"a": table, "b": table}, tmp_path / "refused")
    write_tensors(tmp_path / "tables", {"a": table, "b": table, "c": table.view(2, 2)})
    assert all(torch.equal(t.flatten(), table) for t in load_file(tmp_path / "tables").values())


def test_shards_and_a_large_step_size_are_refused(monkeypatch):
    monkeypatch.setenv(ASKED, "true")
    with pytest.raises(ValueError, match="must be prodigy or adamw, got adamw8bit: take"):
        require_even(SimpleNamespace(num_processes=2), "adamw8bit", [4])
    require_even(SimpleNamespace(num_processes=1), "adamw8bit", [4])
    with pytest.raises(ConfigError, match=r"must be below 0\.1 for adamw8bit"):
        Optimiser("adamw8bit", 1.0)
    assert Optimiser("adamw8bit").rate == Optimiser("adamw").rate == 1e-4


def test_its_memory_is_counted_as_it_is(wide):
    parameter = torch.nn.Parameter(torch.zeros(128, 256))
    optimiser = make_optimiser([parameter], ADAMW)
    parameter.grad = torch.ones(128, 256)
    optimiser.step()
    held = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in optimiser.state[parameter].items()
        if isinstance(tensor, torch.Tensor) and not name.startswith("qmap")
    )
    assert held == KEPT["adamw8bit"] * MASTER * parameter.numel()
