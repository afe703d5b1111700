"""Fixtures: narrow FLUX and SD3 models as the distiller takes them, with samples that fit."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clear_attention.distill.config import (
    Generation,
    Loss,
    Optimiser,
    RunConfig,
    StudentConfig,
    Training,
)
from clear_attention.distill.data.shards import Samples

# Model -> width of its text embeddings, blocks whose attention is compared.
WIDTHS = {"a": 64, "b": 64, "3.5-medium": 48}
BLOCKS = {"a": "double 0, single 0", "b": "double 1, single 0-2", "3.5-medium": "joint 0-2"}
POOLED = 32
TRAINING = Training(steps=4, batch=2, precision="float32", guidance=3.5)


class WordsCLIP:
    """A text encoder: every word is a token, short prompts are padded to four."""

    def __init__(self, width: int, pooled: bool = True) -> None:
        self.width, self.pooled, self.encoded = width, pooled, 0

    def tokenize(self, text: str) -> list[str]:
        return text.split()

    def encode_from_tokens_scheduled(self, words: list[str]) -> list[Any]:
        self.encoded += 1
        draw = torch.Generator().manual_seed(len(" ".join(words)))
        context = torch.randn(1, max(4, len(words)), self.width, generator=draw)
        pooled = torch.randn(1, POOLED, generator=draw) if self.pooled else None
        return [[context, {"pooled_output": pooled}]]


@pytest.fixture
def teacher(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Make a fresh MODEL by name: ``teacher("b")`` of FLUX, ``teacher("3.5-medium")`` of SD3."""

    import comfy.ldm.flux.math

    def make(name: str) -> Any:
        fused = comfy.ldm.flux.math.apply_rope.__module__.startswith("comfy_kitchen")
        if fused and name in ("a", "b"):
            pytest.skip("this host cannot train FLUX: see require_trainable")
        kind = "flux_model" if name in ("a", "b") else "sd3_model"
        return request.getfixturevalue(kind)(name)

    return make


@pytest.fixture
def short_generation(node_classes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of a distillation that is painted in two steps, with one sample to validate with."""
    module = sys.modules[node_classes["CLEARDistill"].__module__]
    short = functools.partial(module.Generation, steps=2, held_out_samples=1)
    monkeypatch.setattr(module, "Generation", short)


def unrehearsed(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let runs begin at once and draw no losses, for what is about neither.

    Args:
        run: The module whose runs those are: ``comfyui.distill.run`` of the library or of a pack.
        monkeypatch: Takes it back.

    Returns:
        The module.
    """
    monkeypatch.setattr(run, "look_ahead", lambda *args, **kwargs: None)
    shown = sys.modules[run.Validation.__module__]
    monkeypatch.setattr(shown, "draw_losses", lambda folder: None)
    return run


def samples(name: str, count: int = 2, grid: int = 6) -> Samples:
    """Draw samples for a model, with latents of twice the grid on a side."""
    draw = torch.Generator().manual_seed(3)
    return Samples(
        latent=torch.randn(count, 16, 2 * grid, 2 * grid, generator=draw),
        context=torch.randn(count, 5, WIDTHS[name], generator=draw),
        pooled=torch.randn(count, POOLED, generator=draw),
        seed=torch.arange(count),
    )


def batch(name: str) -> Any:
    """Draw a batch of two samples for a model."""
    from clear_attention.distill.data.batches import Batch

    noise = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(4))
    return Batch(samples(name), noise, torch.tensor([0.3, 0.8]))


def student_of(denoiser: Any, name: str, student: StudentConfig, **training: Any) -> Any:
    """Make a distillation whose student has moved away from its teacher already."""
    from clear_attention.distill.tasks import Distillation

    settings = Training(precision="float32", **training)
    with torch.inference_mode(False):
        task = Distillation(denoiser, settings, student, Loss(attention_blocks=BLOCKS[name]))
        draw = torch.Generator().manual_seed(5)
        for parameter in task.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=draw)
    return task


def gradients(task: Any, name: str) -> tuple[float, dict[str, Tensor]]:
    """Return a batch's loss, and the gradient of everything that is trained."""
    task.zero_grad()
    with torch.inference_mode(False), task.context():
        loss = task(batch(name))["loss"]
        loss.backward()
    return float(loss.detach()), {key: value.grad for key, value in task.named_parameters()}


def config(folder: Path, name: str, **changes: Any) -> RunConfig:
    """Describe a run of a few steps on pictures of 64 x 64 pixels."""
    settings: dict[str, Any] = dict(
        output=folder / "clear" / "mine.safetensors",
        folder=folder / "run",
        student=StudentConfig(radius=2),
        loss=Loss(attention_blocks=BLOCKS[name]),
        optimiser=Optimiser("adamw", 1e-3),
        training=TRAINING,
        generation=Generation(
            held_out=1, samples=3, held_out_samples=2, sizes_px=((64, 64),), steps=2, shard=2
        ),
    )
    return RunConfig(**{**settings, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files in a folder and its folders, by their names in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
