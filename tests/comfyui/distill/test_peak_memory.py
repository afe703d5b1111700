"""The memory that a run is told to need is its peak on a wide model, by torch's own counter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from clear_attention.distill.ahead.duration import Pass
from clear_attention.distill.ahead.memory import STEP_ON_CUDA
from clear_attention.distill.config import Optimiser, RunConfig, StudentConfig, Training
from clear_attention.distill.data.shards import Samples, ShardFolder
from clear_attention.distill.tasks import Distillation

from ..families import zoo, zoo_models

EDGE, TEXT = 12, 12
# Of what an update needs, activations are a tenth to a third; the rest is as wide as the model.
WIDE = {
    "flux": dict(hidden_size=768, num_heads=6, depth=1, depth_single_blocks=1, mlp_ratio=4.0),
    "z_image": dict(dim=768, n_heads=6, n_kv_heads=6, n_layers=1, n_refiner_layers=1),
}
RUNS = {
    "whole": (StudentConfig(radius=2), Optimiser("adamw"), {}),
    "low rank": (StudentConfig(radius=2, rank=16), Optimiser("prodigy"), {}),
    "recomputed": (StudentConfig(radius=2, rank=16), Optimiser("adamw"), {"accumulate": 2}),
}
CASES = [*(("flux", run) for run in RUNS), ("z_image", "whole")]


def peak_of(run) -> int:
    """Return by how many bytes torch's memory grew at most during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def bytes_of(tensors) -> int:
    """Return the bytes that tensors hold together."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def settings_of(folder: Path, run: str) -> RunConfig:
    student, optimiser, changes = RUNS[run]
    return RunConfig(
        output=folder / "clear.safetensors",
        folder=folder / "run",
        student=student,
        optimiser=optimiser,
        training=Training(
            **dict(steps=3, batch=2, precision="float32", **changes),
            gradient_checkpointing=run == "recomputed",
        ),
    )


@pytest.mark.parametrize("at_once", [True, False])
def test_adamw_takes_a_copy_of_all_tensors_where_it_steps_over_them_at_once(at_once):
    # On a CPU it does so only when it is told to; on CUDA by default.
    tensors = [torch.nn.Parameter(torch.randn(64, 64)) for _ in range(20)]
    for each in tensors:
        each.grad = torch.randn(64, 64)
    optimiser = torch.optim.AdamW(tensors, foreach=at_once)
    optimiser.step()  # makes what it remembers
    copies = peak_of(optimiser.step) / bytes_of(tensors)
    expected = STEP_ON_CUDA["adamw"] if at_once else 2 / len(tensors)
    assert copies == pytest.approx(expected, abs=0.06)


@pytest.fixture(scope="module")
def wide(host):
    """Make a wide MODEL by name."""
    made = {}

    def make(name):
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                entry = zoo.ENTRIES[name]
                dimensions = {**entry.dimensions, **WIDE[name]}
                changed = dataclasses.replace(entry, dimensions=dimensions)
                patch.setitem(zoo.ENTRIES, name, changed)
                made[name] = zoo_models.build(name)
        return made[name].clone()

    return make


@pytest.mark.parametrize(("name", "run"), CASES)
def test_the_memory_told_is_the_peak_and_a_validation_needs_less(
    name, run, wide, tmp_path, monkeypatch
):
    from clear_attention.comfyui.distill import ahead
    from clear_attention.comfyui.distill.data.datasets import open_data
    from clear_attention.comfyui.distill.denoiser import HostDenoiser
    from clear_attention.comfyui.distill.training import make_trainer
    from clear_attention.distill.workers.processes import make_accelerator

    monkeypatch.setattr(ahead, "rehearsed", lambda *args, **kwargs: Pass(0.0, 0.0, 0.0))
    config, model, entry = settings_of(tmp_path, run), wide(name), zoo.ENTRIES[name]
    pooled = zoo.POOLED if entry.extras is zoo.pooled else 0
    drawn = Samples(
        torch.randn(4, entry.channels, 2 * EDGE, 2 * EDGE),
        torch.randn(4, TEXT, 32),
        torch.randn(4, pooled),
        torch.arange(4),
    )
    for folder in ("train", "held_out"):
        ShardFolder(config.data_folder / folder, {}).add(drawn)
    told = ahead.look_ahead(model, None, config, (), shows=False, processes=1).memory
    denoiser = HostDenoiser(model)
    data, held_out = open_data(config, denoiser.fingerprint)
    task = Distillation(denoiser, config.training, config.student, config.loss)
    trainer = make_trainer(task, data, held_out, config, make_accelerator(cpu=True))
    trainer.update()  # the optimiser's memory is made by its first step
    trainer.optimiser.zero_grad(set_to_none=True)
    memory = [t for state in trainer.optimiser.state.values() for t in state.values()]
    held = bytes_of(model.model.diffusion_model.state_dict().values())
    held += bytes_of([*task.parameters(), *(t for t in memory if torch.is_tensor(t))])
    update = held + peak_of(trainer.update)
    gradients = bytes_of([each.grad for each in task.parameters()])
    validation = held + gradients + peak_of(trainer.validate)
    assert validation <= update
    assert 0.85 <= told.total / update <= 1.15
