"""The demo's teacher, its held-out prompts, and how far other models are from it.

What `evaluate` and `radii` measure with, and some benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .students import TEACHING, TRAINED_PX

NTK = {1: 1.0, 2: 1.0, 4: 10.0}  # CLEAR High Resolution's factor; 768 pixels need none
STEPS = 16
SEED = 7_000
ANOTHER = 1_000  # added to a seed


@dataclass(frozen=True)
class Error:
    """How far a model is from the teacher's full attention.

    Attributes:
        velocity: Mean squared difference of the velocity, over the noise levels.
        picture: Mean squared difference of the finished pictures, of values from 0 to 1.
    """

    velocity: float
    picture: float

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio of the pictures in dB."""
        from clear_attention.compare.pictures import psnr

        return psnr(self.picture)


Make = Callable[[Any], Any]
"""Turns the teacher, a MODEL, into the model to compare with it."""


def encoded(lines: Sequence[str], guidance: float) -> list[Any]:
    """Encode prompts as CONDITIONING."""
    from demo.nodes.text import DemoCLIP

    clip, extra = DemoCLIP(), {"guidance": guidance}
    return [
        clip.encode_from_tokens_scheduled(clip.tokenize(line), add_dict=extra) for line in lines
    ]


def task_of(prompt: Any, scale: int) -> Any:
    """Return the task to paint a prompt at a size."""
    import torch

    from clear_attention.comfyui.compare.painting import Task

    edge = TRAINED_PX * scale // 8
    return Task(prompt, prompt, torch.zeros(1, 16, edge, edge), STEPS, 1.0, "euler", "simple")


class Bench:
    """The teacher, its prompts, and what it paints."""

    def __init__(self) -> None:
        import comfy.sd

        from clear_attention.config.prompts import read_prompts
        from clear_attention.distill.config_file import read
        from demo.codec.vae_file import vae_weights
        from demo.nodes.network import load_model

        config = read(TEACHING / "student.toml")
        lines = read_prompts(TEACHING / "prompts.txt")[-config.generation.held_out :]
        self.prompts = encoded(lines, config.training.guidance)
        self.teacher = load_model()
        self.vae = comfy.sd.VAE(vae_weights())
        self.painted: dict[tuple[int, int], Any] = {}
        self.velocities: dict[tuple[int, int], Any] = {}

    def behind_window(self, radius: int, factor: int = 0, **more: Any) -> Make:
        """Put the teacher behind a window, as CLEARAttention does."""
        from clear_attention.comfyui.core.patch import with_window
        from clear_attention.comfyui.core.settings import WindowSettings

        local = WindowSettings(radius, pool_factor=factor, **more)
        return lambda model: with_window(model, local)

    def student(self, name: str) -> Make:
        """Load a student, as CLEARLoader does."""
        from clear_attention.comfyui.weights.loader import load_onto

        return lambda model: load_onto(model, name)

    def error(self, make: Make, scale: int, count: int) -> Error:
        """Compare a model with the teacher at one size."""
        from clear_attention.compare.velocity import squared_difference

        latents, pictures = self.teachers(scale, count)
        model = self.prepare(make(self.teacher), scale)
        velocity: list[float] = []
        picture: list[float] = []
        for index in range(count):
            true = self.teachers_velocities(scale, index)
            found = self.velocities_of(model, scale, index, latents[index])
            velocity += [float(squared_difference(*pair)) for pair in zip(true, found, strict=True)]
            painted = self.decode(self.paint(model, index, scale))
            picture.append(float(squared_difference(painted[None], pictures[index][None])))
        return Error(sum(velocity) / len(velocity), sum(picture) / len(picture))

    def another_seed(self, scale: int, count: int) -> float:
        """Return how far the teacher's pictures of two seeds are apart, in dB."""
        from clear_attention.compare.pictures import psnr
        from clear_attention.compare.velocity import squared_difference

        model = self.prepare(self.teacher, scale)
        _, pictures = self.teachers(scale, count)
        others = [self.decode(self.paint(model, index, scale, ANOTHER)) for index in range(count)]
        pairs = zip(others, pictures, strict=True)
        apart = [float(squared_difference(one[None], other[None])) for one, other in pairs]
        return psnr(sum(apart) / count)

    def paintings(self, make: Make, indices: Sequence[int]) -> list[Any]:
        """Let a model paint some held-out prompts at the training size."""
        model = make(self.teacher)
        return [self.decode(self.paint(model, index, 1)) for index in indices]

    def teachers(self, scale: int, count: int) -> tuple[list[Any], list[Any]]:
        """Return the teacher's latents and pictures of the held-out prompts."""
        model = self.prepare(self.teacher, scale)
        for index in range(count):
            if (scale, index) not in self.painted:
                latent = self.paint(model, index, scale)
                self.painted[scale, index] = latent, self.decode(latent)
        chosen = [self.painted[scale, index] for index in range(count)]
        return [latent for latent, _ in chosen], [picture for _, picture in chosen]

    def teachers_velocities(self, scale: int, index: int) -> Any:
        """Return the teacher's velocities on one of its own pictures."""
        if (scale, index) not in self.velocities:
            model = self.prepare(self.teacher, scale)
            latent = self.painted[scale, index][0]
            self.velocities[scale, index] = self.velocities_of(model, scale, index, latent)
        return self.velocities[scale, index]

    def prepare(self, model: Any, scale: int) -> Any:
        """Prepare a model for a size, as CLEARHighRes does."""
        from clear_attention.comfyui.positions.high_resolution import for_high_resolution

        if NTK[scale] == 1:
            return model
        return for_high_resolution(model, NTK[scale], proportional_attention=True)

    def paint(self, model: Any, index: int, scale: int, further: int = 0) -> Any:
        """Paint a held-out prompt, as CLEARCompare does; ``further`` is added to its seed."""
        import torch

        from clear_attention.comfyui.compare.painting import paint

        with torch.inference_mode():
            return paint(model, self.task(index, scale), SEED + index + further, _ignore).latent

    def velocities_of(self, model: Any, scale: int, index: int, latent: Any) -> Any:
        """Predict the velocities on a picture, as CLEARCompare does."""
        import torch

        from clear_attention.comfyui.compare.predictions import velocities

        with torch.inference_mode():
            return velocities(model, self.task(index, scale), latent, SEED + index, _ignore)

    def task(self, index: int, scale: int) -> Any:
        """Return what is painted."""
        return task_of(self.prompts[index], scale)

    def decode(self, latent: Any) -> Any:
        """Decode one latent: ``[H, W, 3]``."""
        import torch

        with torch.inference_mode():
            return self.vae.decode(latent)[0]


def _ignore(_: Any) -> None:
    """Follow no steps."""
