"""Paint over an enlarged picture: tile by tile, or all of it with CLEAR or full attention."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import comfy.sample
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from clear_attention.comfyui.controlnet.node import with_local_attention
from clear_attention.comfyui.controlnet.settings import ControlSettings
from clear_attention.comfyui.positions.high_resolution import for_high_resolution
from clear_attention.comfyui.weights.loader import load_onto
from clear_attention.sampling.pyramid import first_step, ntk_factor

from ..codec.vae_file import vae_weights
from ..nodes.control import load_control_net, steered
from ..nodes.network import load_model
from ..nodes.text import DemoCLIP
from ..students import GUIDANCE, STUDENT, STUDENTS, TRAINED_PX
from .cutting import tiles_of

STEPS, SEED = 20, 0
RADIUS, _ = STUDENTS[STUDENT]


@dataclass(frozen=True)
class Setting:
    """How a picture is painted over.

    Attributes:
        denoise: Share of the schedule.
        controlled: Whether the ControlNet holds it to what it was.
    """

    denoise: float
    controlled: bool

    def __str__(self) -> str:
        return f"denoise {self.denoise:g}" + (" with a ControlNet" if self.controlled else "")


@dataclass
class Painted:
    """A picture ``[H, W, 3]`` and the seconds of its sampling steps."""

    picture: Tensor
    seconds: float


@dataclass
class Steps:
    """Times a run's steps; the first, which also loads and encodes, counts as the others' mean."""

    ends: list[float] = field(default_factory=list)

    def __call__(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())

    def total(self) -> float:
        """Return the seconds of all steps."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1) * len(self.ends)


class Enlarger:
    """The demo's model, and three ways to paint over a picture with it."""

    def __init__(self, prompt: str) -> None:
        self.model, self.net = load_model(), load_control_net()
        self.vae = comfy.sd.VAE(vae_weights())
        clip = DemoCLIP()
        ((self.context, self.extra),) = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))

    def full(self, picture: Tensor, setting: Setting) -> Painted:
        """Paint over all of it with full attention."""
        return self._paint(self._for_size(self.model, picture), self.net, picture, setting)

    def clear(self, picture: Tensor, setting: Setting) -> Painted:
        """Paint over all of it with CLEAR, in the model and in the ControlNet."""
        model = self._for_size(load_onto(self.model, STUDENT), picture)
        net = with_local_attention(self.net, ControlSettings(RADIUS))
        return self._paint(model, net, picture, setting)

    def tiles(self, picture: Tensor, setting: Setting) -> Painted:
        """Paint over it tile by tile with full attention, as tile upscalers do."""
        canvas, seconds = picture, 0.0
        for crop, blend in tiles_of(picture.shape[0]):
            painted = self._paint(self.model, self.net, canvas[crop], setting)
            whole = canvas.clone()
            whole[crop] = painted.picture
            canvas = torch.lerp(canvas, whole, blend)
            seconds += painted.seconds
        return Painted(canvas, seconds)

    def _for_size(self, model: ModelPatcher, picture: Tensor) -> ModelPatcher:
        factor = ntk_factor(max(picture.shape[:2]), TRAINED_PX)
        return for_high_resolution(model, factor, proportional_attention=True)

    @torch.inference_mode()
    def _paint(self, model: ModelPatcher, net: Any, picture: Tensor, setting: Setting) -> Painted:
        extra = {**self.extra, "guidance": GUIDANCE}
        if setting.controlled:
            extra |= steered(net, picture[None], self.vae)
        latent = self.vae.encode(picture[None])
        conditioning, steps = [[self.context, extra]], Steps()
        sampled = comfy.sample.sample(
            *(model, comfy.sample.prepare_noise(latent, SEED), STEPS, 1.0, "euler", "simple"),
            *(conditioning, conditioning, latent),
            start_step=first_step(STEPS, setting.denoise),
            callback=steps,
            disable_pbar=True,
            seed=SEED,
        )
        return Painted(self.vae.decode(sampled)[0].float().cpu(), steps.total())
