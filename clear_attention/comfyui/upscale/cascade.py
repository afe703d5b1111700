"""One picture's way through the stages of a cascade: enlarge, add noise, paint over, and again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...sampling.pyramid import Stage, attention_factor, guidance_size
from ..families import family_of
from ..positions.high_resolution import for_high_resolution
from ..vae.pixels import decode, encode, resize
from .cache import Finished, StageCache, fingerprint
from .guidance import with_low_frequency_guidance
from .progress import CascadeProgress

STAGES = StageCache()
"""Finished stages, so that a changed or interrupted cascade does not begin again."""

Conditioning = list[list[Any]]


@dataclass(frozen=True, eq=False)
class Painting:
    """What a cascade paints with.

    Attributes:
        model: MODEL.
        vae: VAE.
        positive: CONDITIONING.
        negative: CONDITIONING.
        upscale_model: UPSCALE_MODEL that enlarges in front of Lanczos, or None.
    """

    model: ModelPatcher
    vae: Any
    positive: Conditioning
    negative: Conditioning
    upscale_model: Any = None


@dataclass(frozen=True)
class Sampling:
    """How each stage is sampled; the names are KSampler's.

    Attributes:
        seed: Of the noise of every stage.
        cfg: Classifier-free guidance.
        sampler: Name of the sampler.
        scheduler: Name of the scheduler.
        guidance: Strength with which the low frequencies are held at the first step.
        decay: How fast that falls over the steps.
        tile: Edge in pixels of the VAE's tiles, 0 for none.
        scaled: Whether stages set the model's positions and softmax scale.
    """

    seed: int
    cfg: float
    sampler: str
    scheduler: str
    guidance: float
    decay: float
    tile: int
    scaled: bool


@dataclass(frozen=True, eq=False)
class SourcePicture:
    """The picture that a cascade begins with.

    Attributes:
        image: ``[B, H, W, 3]``, 0 to 1.
        mask: Where to paint, a LATENT's noise mask, or None.
        batch_index: A LATENT's, or None: which of a batch's noise each picture gets.
    """

    image: Tensor
    mask: Tensor | None = None
    batch_index: Any = None


class Cascade:
    """The run of a plan.

    Attributes:
        lines: What happened, a line per stage.
    """

    def __init__(
        self, painting: Painting, sampling: Sampling, source: SourcePicture, stages: Sequence[Stage]
    ) -> None:
        self.painting = painting
        self.sampling = sampling
        self.source = source
        self.stages = stages
        self.lines: list[str] = []
        self.family = family_of(painting.model.get_model_object("diffusion_model"))
        compression = painting.vae.spacial_compression_encode()
        grid = [side // compression for side in source.image.shape[1:3]]
        self.positive = areas_as_shares(painting.positive, *grid)
        self.negative = areas_as_shares(painting.negative, *grid)

    def run(self) -> Finished:
        """Run the stages that are not kept from an earlier run."""
        keys = self._keys()
        found = [STAGES.get(key) for key in keys]
        first = max((at + 1 for at, kept in enumerate(found) if kept is not None), default=0)
        finished = (found[first - 1] if first else None) or Finished(self.source.image)
        progress = CascadeProgress(self.painting.model, self.stages)
        for at, stage in enumerate(self.stages):
            if at >= first:
                finished = self._paint(at, finished.image, progress)
                STAGES.put(keys[at], finished, self.painting.model)
            how = "kept from an earlier run" if at < first else self._describe(stage)
            place = f"stage {at + 1} of {len(self.stages)}"
            self.lines.append(f"{place}, {stage.width} x {stage.height}, {how}")
            progress.finished(at)
        return finished

    def _paint(self, at: int, smaller: Tensor, progress: CascadeProgress) -> Finished:
        """Run one stage; one without steps only enlarges, which the VAE takes no part in."""
        painting, sampling, stage = self.painting, self.sampling, self.stages[at]
        enlarged = resize(smaller, stage.width, stage.height, painting.upscale_model)
        if not stage.kept:
            return Finished(enlarged)
        latent = encode(painting.vae, enlarged, sampling.tile)
        if painting.model.get_model_object("latent_format").latent_dimensions == 3:
            latent = latent if latent.ndim == 5 else latent.unsqueeze(2)
        progress.encoded(at)
        painted = comfy.sample.sample(
            self._model(stage, latent, smaller),
            comfy.sample.prepare_noise(latent, sampling.seed, self.source.batch_index),
            stage.steps,
            sampling.cfg,
            sampling.sampler,
            sampling.scheduler,
            self.positive,
            self.negative,
            latent,
            start_step=stage.first_step,
            noise_mask=self.source.mask,
            callback=progress.sampling(at, stage.kept),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=sampling.seed,
        )
        return Finished(decode(painting.vae, painted, sampling.tile), painted)

    def _model(self, stage: Stage, latent: Tensor, smaller: Tensor) -> ModelPatcher:
        """Return the model with a stage's positions, scale and guidance."""
        model, sampling = self.painting.model, self.sampling
        if sampling.scaled and self.family is not None:
            ntk_factor = stage.ntk_factor if self.family.has_rotary_base else 1.0
            model = for_high_resolution(model, ntk_factor, stage.proportional)
        if sampling.guidance > 0:
            compression = self.painting.vae.spacial_compression_encode()
            low = (max(1, side // compression) for side in smaller.shape[1:3])
            size = guidance_size(*latent.shape[-2:], *low)
            model = with_low_frequency_guidance(
                model, latent, size, sampling.guidance, sampling.decay
            )
        return model

    def _keys(self) -> list[Hashable]:
        """Name each stage by all that it depends on."""
        painting, source = self.painting, self.source
        common = fingerprint(
            (
                *(painting.model, painting.vae, painting.upscale_model),
                *(self.positive, self.negative),
                *(source.image, source.mask, source.batch_index),
            )
        )
        return [
            (common, self.sampling, tuple(self.stages[: at + 1])) for at in range(len(self.stages))
        ]

    def _describe(self, stage: Stage) -> str:
        if not stage.kept:
            return "enlarged only"
        parts = [f"the last {stage.kept} of {stage.steps} steps"]
        if self.sampling.scaled and self.family is not None:
            if self.family.has_rotary_base:
                parts.append(f"ntk_factor {stage.ntk_factor:.3g}")
            parts.append(f"attention scale x {attention_factor(stage):.3f}")
        if self.sampling.guidance:
            parts.append(f"low frequencies held with {self.sampling.guidance:g}")
        return ", ".join(parts)


def areas_as_shares(conditioning: Conditioning, height: int, width: int) -> Conditioning:
    """Return a conditioning whose areas are shares of the picture, as the host also has them.

    Areas in latent pixels are those of the picture that the cascade begins with, and would stay in
    a corner of the larger ones. Masks and ControlNets are scaled by the host.
    """
    shares: Conditioning = []
    for context, extra in conditioning:
        area = extra.get("area")
        if area is not None and area[0] != "percentage":
            sides = (height, width, height, width)
            area = ("percentage", *(a / side for a, side in zip(area, sides, strict=True)))
            extra = {**extra, "area": area}
        shares.append([context, extra])
    return shares
