"""Distilling the demo's teacher in the real host: forty updates must repair what they can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clear_attention.distill import log
from clear_attention.distill.config import (
    Generation,
    Loss,
    Optimiser,
    RunConfig,
    StudentConfig,
    Training,
)

pytestmark = pytest.mark.long

STEPS = 40
# Small pictures, of 12 x 12 tokens, so that this takes a minute; a radius of 2 sees 13 of the 144.
PROMPTS = (
    *("a photograph of galaxies", "mountains", "a brook in the forest", "dandelions in a meadow"),
    *("a sunset", "green leaves", "galaxies, bright", "a dandelion at noon"),
)


@pytest.fixture(scope="module")
def run(host: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict[str, float]]:
    """A finished run, and the losses on held-out data before its first update."""
    from clear_attention.comfyui.distill.denoiser import HostDenoiser
    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher
    from clear_attention.distill.data.batches import Batches
    from clear_attention.distill.data.held_out import HeldOut
    from clear_attention.distill.data.shards import ShardFolder
    from clear_attention.distill.tasks import Distillation
    from clear_attention.distill.trainer import Trainer
    from demo.nodes.network import load_model
    from demo.nodes.text import DemoCLIP

    folder = tmp_path_factory.mktemp("distillation")
    config = RunConfig(
        output=folder / "clear_test_local_2.safetensors",
        folder=folder / "run",
        base="CLEAR demo",
        student=StudentConfig(radius=2),
        loss=Loss(0.1, 1.0, 0.5, attention_blocks="double 0, single 0-3"),
        optimiser=Optimiser("adamw", 1e-3, betas=(0.9, 0.98), warmup_steps=10, cosine_to=0.02),
        training=Training(steps=STEPS, batch=4, precision="float32", save_every=STEPS),
        generation=Generation(
            samples=16, held_out=2, held_out_samples=8, sizes_px=((192, 192),), steps=8, batch=8
        ),
    )
    watcher = Watcher(should_stop=lambda: False)
    assert distil(load_model(), DemoCLIP(), config, PROMPTS, watcher)
    denoiser = HostDenoiser(load_model())
    shards = ShardFolder(config.data_folder / "held_out")
    untrained = Trainer(
        Distillation(denoiser, config.training, config.student, config.loss),
        Batches(shards, config.training),
        config.training,
        config.optimiser,
        folder / "untrained",
        HeldOut(shards, config.training),
    )
    return config, untrained.validate()


def held_out(config: RunConfig) -> dict[str, float]:
    """Return the last losses on held-out data."""
    return {name: value for _, kind, name, value in log.read(config.folder) if kind == "held_out"}


def test_forty_updates_repair_a_quarter_of_the_velocitys_error(run: Any):
    config, before = run
    after = held_out(config)
    assert before["prediction"] > 1e-3  # the window hurts
    assert after["prediction"] < 0.75 * before["prediction"]
    assert after["attention"] < 0.75 * before["attention"]


def test_the_file_has_the_published_names_and_says_its_window(run: Any):
    from clear_attention.weights import checkpoint

    config, _ = run
    found = checkpoint.read(config.output)
    assert (found.radius, found.pool_factor, found.base) == (2, 0, "CLEAR demo")
    assert found.size.blocks == {"double": 1, "single": 4}
    assert all(tensor.dtype == torch.bfloat16 for tensor in checkpoint.load(found).values())


def test_a_finished_run_is_not_trained_again(run: Any):
    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher
    from demo.nodes.network import load_model

    config, _ = run
    written = load_file(config.output)
    steps: list[int] = []
    watcher = Watcher(losses=lambda step, values: steps.append(step), should_stop=lambda: False)
    assert distil(load_model(), None, replace(config), (), watcher)
    assert steps == []
    again = load_file(config.output)
    assert all(torch.equal(again[name], tensor) for name, tensor in written.items())
