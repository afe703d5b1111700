"""Sampling through the host, as KSampler does it, for the trainer's data and its pictures."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from torch import Tensor

from ....distill.config import RunConfig, one_of
from ...families import require_family

KEPT = ("pooled_output", "attention_mask")
"""What else than the embedding may come of a prompt; masks hide nothing of one that is alone."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """An encoded prompt.

    Attributes:
        context: Text embedding, ``[1, T, D]``.
        pooled: Pooled text vector, ``[1, P]``; ``[1, 0]`` from text encoders that give none.
    """

    context: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Painter:
    """How pictures are sampled; the names are KSampler's.

    Attributes:
        steps: Sampling steps.
        sampler: Name of the sampler.
        scheduler: Name of the scheduler.
        cfg: Classifier-free guidance, 1 for none.
        guidance: For guidance-distilled models.
        negative: Encoded empty prompt; needed for a cfg other than 1.
    """

    steps: int
    sampler: str
    scheduler: str
    cfg: float
    guidance: float
    negative: Prompt | None = None

    def paint(
        self,
        model: ModelPatcher,
        prompts: Sequence[Prompt],
        seeds: Iterable[int],
        size_px: tuple[int, int],
    ) -> Tensor:
        """Sample one picture per prompt from the noise that KSampler draws for its seed.

        Args:
            model: A MODEL.
            prompts: Of equal text length.
            seeds: One per prompt.
            size_px: Height and width.

        Returns:
            Latents as a VAE gives them, ``[B, C, H, W]`` float32, or ``[B, C, 1, H, W]`` of models
            that know frames.
        """
        channels = model.get_model_object("latent_format").latent_channels
        latent_px = require_family(model).data.latent_px
        latent = torch.zeros(1, channels, *(edge // latent_px for edge in size_px))
        latent = comfy.sample.fix_empty_latent_channels(model, latent)
        noise = torch.cat([comfy.sample.prepare_noise(latent, seed) for seed in seeds])
        positive = self._conditioning(model, stack(prompts))
        negative = self._conditioning(model, self.negative) if self.negative else positive
        return comfy.sample.sample(
            model,
            noise,
            self.steps,
            self.cfg,
            self.sampler,
            self.scheduler,
            positive,
            negative,
            torch.zeros_like(noise),
            callback=_stop_if_asked,
            disable_pbar=True,
            seed=0,
        ).float()

    def _conditioning(self, model: ModelPatcher, prompt: Prompt) -> list[list[Any]]:
        extra = given(model, prompt.context, prompt.pooled)
        return [[prompt.context, {**extra, "guidance": self.guidance}]]


def painter_of(config: RunConfig, clip: Any) -> Painter:
    """Return how the run's pictures are sampled.

    Raises:
        ConfigError: The host has no such sampler or scheduler.
    """
    generation = config.generation
    one_of("generation.sampler", generation.sampler, KSampler.SAMPLERS)
    one_of("generation.scheduler", generation.scheduler, KSampler.SCHEDULERS)
    negative = encode(clip, "") if clip is not None and generation.cfg != 1 else None
    return Painter(
        generation.steps,
        generation.sampler,
        generation.scheduler,
        generation.cfg,
        config.training.guidance,
        negative,
    )


def encode(clip: Any, text: str) -> Prompt:
    """Encode a prompt with a CLIP, as CLIPTextEncode does it.

    Raises:
        ValueError: The model takes more of it than is kept.
    """
    (context, extra), *_ = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    further = [key for key, value in extra.items() if key not in KEPT and value is not None]
    tensors = [key for key in further if isinstance(extra[key], Tensor)]
    if tensors:
        raise ValueError(
            "A prompt must be one text embedding and at most one pooled vector to be distilled "
            f"with, got also {', '.join(tensors)} from the text encoder: models that take more "
            "cannot be distilled."
        )
    pooled = extra.get("pooled_output")
    return Prompt(context.cpu(), context.new_zeros(1, 0).cpu() if pooled is None else pooled.cpu())


def given(model: ModelPatcher, context: Tensor, pooled: Tensor) -> dict[str, Any]:
    """Return what a MODEL takes of prompts beside their embedding.

    Args:
        model: A MODEL.
        context: Embeddings ``[B, T, D]``.
        pooled: Pooled vectors ``[B, P]``, of width 0 where there are none.
    """
    masks = {"attention_mask": torch.ones(context.shape[:2], device=context.device).long()}
    return {
        "pooled_output": pooled if pooled.shape[-1] else None,
        **(masks if require_family(model).counts_by_mask else {}),
    }


def stack(prompts: Sequence[Prompt]) -> Prompt:
    """Join prompts of equal text length into one batch."""
    return Prompt(
        torch.cat([prompt.context for prompt in prompts]),
        torch.cat([prompt.pooled for prompt in prompts]),
    )


def _stop_if_asked(*_: object) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


@contextmanager
def request_to_stop_kept() -> Generator[None]:
    """Let the user's request to stop stand, which the host forgets as soon as it raises it.

    The host raises it out of samplers and progress bars, where nothing could be saved.
    """
    try:
        yield
    except comfy.model_management.InterruptProcessingException:
        comfy.model_management.interrupt_current_processing(True)


def interrupted() -> bool:
    """Say whether the user asked the host to stop; the request stands."""
    return comfy.model_management.processing_interrupted()
