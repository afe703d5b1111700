"""Enlarge a picture by a guided cascade: the plan, the run, and the report."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...plan.report import duration
from ...sampling.pyramid import TOKEN_PX, Stage, plan
from ..core.report import tell
from ..families import family_of, plain_module
from ..vae.pixels import decode, encode
from .cascade import Cascade, Painting, Sampling, SourcePicture

logger = logging.getLogger(__name__)

UNKNOWN_MULTIPLE = 64  # pixels: what networks that halve their latent three times can take


@dataclass(frozen=True)
class PictureSize:
    """How large to paint, and how much anew: the arguments of `pyramid.plan`.

    Attributes:
        size: Longer side of the result in pixels.
        stages: Longer sides of the stages on the way, or nothing to choose them; as text.
        denoise: Strength of each stage, as text.
        steps: Of the whole schedule.
        trained: Longer side of the pictures that the model was trained on, 0 to leave its
            positions and scale alone.
    """

    size: int
    stages: str
    denoise: str
    steps: int
    trained: int


DECIMAL_COMMA = re.compile(r"(?<![\d.])[01],\d+(?![\d.])")
"""A number from 0 to 1 as half of the world writes it: two numbers are not written so."""


def upscale(
    painting: Painting,
    sampling: Sampling,
    size: PictureSize,
    image: Tensor | None,
    latent: dict[str, Any] | None,
    node_id: str | None = None,
    notes: Sequence[str] = (),
) -> tuple[Tensor, dict[str, Any]]:
    """Enlarge a picture, or a latent; return the picture and its latent.

    Args:
        painting: What to paint with; all of it is left as it is.
        sampling: How.
        size: How large.
        image: ``[B, H, W, 3]``, 0 to 1, or None.
        latent: LATENT, or None; its noise mask counts in every stage.
        node_id: The node that shows the report.
        notes: Lines in front of the report.

    Raises:
        ValueError: Something does not fit; the message says what to do.
        InterruptProcessingException: The user stopped it. The same again goes on after the last
            finished stage.
    """
    _check(painting, image, latent)
    source = _source(painting, image, latent, sampling.tile)
    token_px = token_px_of(painting)
    planned = plan(
        source.image.shape[2],
        source.image.shape[1],
        size.size,
        denoise=read_numbers("denoise", size.denoise, "0.7, 0.5"),
        steps=size.steps,
        via=[int(side) for side in read_numbers("stages", size.stages, "2048, 4096")],
        multiple=token_px or UNKNOWN_MULTIPLE,
        trained=size.trained,
        token_px=token_px or TOKEN_PX,
    )
    cascade = Cascade(painting, sampling, source, planned.stages)
    notes = [*notes, *planned.notes]
    if sampling.scaled and cascade.family is None:
        notes.append("CLEAR does not know this model: its positions and scale stay as they are")
    began = time.perf_counter()
    try:
        finished = cascade.run()
    finally:
        stopped = _when_stopped(planned.stages[: len(cascade.lines)], planned.stages)
        first = [] if stopped else [_headline(source, planned.stages, time.perf_counter() - began)]
        publish([*first, *notes, *cascade.lines, *stopped], node_id)
    painted = finished.latent
    if painted is None:
        painted = encode(painting.vae, finished.image, sampling.tile)
    return finished.image, {"samples": painted}


def token_px_of(painting: Painting) -> int | None:
    """Return the edge of a token in pixels, or None where CLEAR does not know the model."""
    network = painting.model.get_model_object("diffusion_model")
    family = family_of(network)
    if family is None:
        return None
    return painting.vae.spacial_compression_encode() * family.patch(plain_module(network))


def read_numbers(name: str, text: str, example: str) -> list[float]:
    """Read numbers with commas between them.

    Raises:
        ValueError: They are none, or have decimal commas.
    """
    decimal = DECIMAL_COMMA.search(text)
    if decimal:
        raise ValueError(
            f'{name} must have points in its numbers, got "{text}": write '
            f"{decimal[0].replace(',', '.')}, or with a space behind the comma for two numbers."
        )
    parts = [part for part in re.split(r"[,;\s]+", text) if part]
    try:
        return [float(part) for part in parts]
    except ValueError:
        raise ValueError(
            f'{name} must be numbers with commas between them, such as "{example}", got "{text}".'
        ) from None


def publish(lines: Sequence[str], node_id: str | None) -> None:
    """Write a report to the log, onto the node and into the running prompt's metadata."""
    for line in lines:
        logger.info("CLEAR Upscale: %s", line)
    if node_id is not None:
        tell("\n".join(lines), node_id)


def _source(
    painting: Painting, image: Tensor | None, latent: dict[str, Any] | None, tile: int
) -> SourcePicture:
    if latent is None:
        assert image is not None
        return SourcePicture(image[..., :3])
    decoded = decode(painting.vae, latent["samples"], tile)
    return SourcePicture(decoded, latent.get("noise_mask"), latent.get("batch_index"))


def _headline(source: SourcePicture, stages: Sequence[Stage], seconds: float) -> str:
    height, width = source.image.shape[1:3]
    number = f"{len(stages)} stage{'s' if len(stages) > 1 else ''}"
    done = f"{stages[-1].width} x {stages[-1].height} from {width} x {height}"
    return f"{done} in {number}, {duration(seconds)}"


def _when_stopped(done: Sequence[Stage], stages: Sequence[Stage]) -> list[str]:
    """Say how to get at what is finished."""
    if len(done) == len(stages):
        return []
    how = "queue again to go on"
    if done:
        how += f"; size {done[-1].longer} gives the last finished stage at once"
    return [f"stopped: {how}"]


def _check(painting: Painting, image: Tensor | None, latent: dict[str, Any] | None) -> None:
    if (image is None) == (latent is None):
        raise ValueError(
            "CLEAR Upscale needs either an image or a latent, got "
            f"{'neither' if image is None else 'both'}. Connect one of them."
        )
    form = painting.model.get_model_object("latent_format")
    known = family_of(painting.model.get_model_object("diffusion_model")) is not None
    if form.latent_dimensions != 2 and not (known and form.latent_dimensions == 3):
        raise ValueError(
            "CLEAR Upscale enlarges pictures, got a model for latents of "
            f"{form.latent_dimensions} dimensions. Connect an image model such as FLUX or SD3."
        )
    channels = painting.vae.latent_channels
    if channels != form.latent_channels:
        raise ValueError(
            f"The VAE must make latents of {form.latent_channels} channels for this model, got one "
            f"that makes {channels}. Load the VAE that belongs to the model."
        )
    if latent is not None and latent["samples"].shape[1] != channels:
        raise ValueError(
            f"The latent must have {channels} channels for this model, got "
            f"{latent['samples'].shape[1]}. Connect one that was made for the same model."
        )
    if latent is not None and latent["samples"].ndim == 5 and latent["samples"].shape[2] != 1:
        raise ValueError(
            f"CLEAR Upscale enlarges pictures, got a latent of {latent['samples'].shape[2]} "
            "frames. Connect one of a single frame."
        )
