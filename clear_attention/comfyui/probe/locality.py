"""Measure how local a model's attention is on a real sample, in one ordinary sampling step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...families.block_text import format_blocks, parse_blocks
from ...families.names import Block
from ...layout import TokenLayout
from ...locality.figure import draw
from ...locality.measure import Locality, measure_locality
from ...locality.report import LocalityReport
from ..core.blocks import BLOCK_KEY, RunningBlock, block_counts, is_pictures, running_block
from ..core.calls.host_call import HostCall, read_call
from ..core.calls.model_call import CALL_KEY, OVERRIDE_KEY, ModelCall, Override
from ..core.geometry import Geometry
from ..core.patch import settings_of, with_settings, with_window
from ..core.pictures import figure_or_message
from ..core.report import NOTHING_SEEN

OnMeasured = Callable[[Block, Locality], None]


@dataclass(frozen=True)
class Sample:
    """The state of denoising at which a model is probed.

    Attributes:
        conditioning: The host's CONDITIONING.
        latent: The host's LATENT of a finished picture, to which noise is added.
        at_percent: Share of the sampling schedule that has passed, 0 is pure noise.
        seed: Of the noise, and of the choice of queries.
    """

    conditioning: Any
    latent: Mapping[str, Any]
    at_percent: float = 0.5
    seed: int = 0


def report_locality(
    model: ModelPatcher, sample: Sample, *, queries: int, share: float, radius: int
) -> tuple[Tensor, str, str]:
    """Probe a model, and judge a radius.

    Args:
        model: A MODEL, left as it is; the window of a CLEAR node on it is ignored.
        sample: What the model denoises.
        queries: Image tokens whose attention is measured, 0 for all.
        share: Of an image token's attention that is to be kept, 0 to 1.
        radius: To be judged, in tokens.

    Returns:
        The plot ``[1, height_px, width_px, 3]``, the table, and the blocks in which the radius
        keeps less than the share, as the input ``dense_blocks`` of other nodes takes them.

    Raises:
        ValueError: The model or the latent cannot be probed; the message says why.
    """
    found = probe(model, sample, queries or None)
    blocks = {format_blocks([block]): locality for block, locality in found.items()}
    report = LocalityReport(blocks, share, radius, _remarks(model, sample, queries))
    dense = format_blocks(block for name in report.too_small_for() for block in parse_blocks(name))
    return figure_or_message(lambda: draw(report))[None], report.table(), dense


def probe(model: ModelPatcher, sample: Sample, queries: int | None = None) -> dict[Block, Locality]:
    """Measure the attention of every block in one sampling step.

    Args:
        model: A MODEL, left as it is.
        sample: What it denoises.
        queries: Image tokens whose attention is measured, None for all.

    Raises:
        ValueError: The latent is empty, the architecture is unknown, or no attention was seen.
    """
    counts = block_counts(model)
    progress = comfy.utils.ProgressBar(sum(counts.values()))
    measured: dict[Block, list[Locality]] = {}

    def add(block: Block, locality: Locality) -> None:
        measured.setdefault(block, []).append(locality)
        progress.update(1)

    probed = with_settings(with_window(model, None), name_blocks=True)
    options = probed.model_options["transformer_options"]
    options[OVERRIDE_KEY] = _recording(add, options.get(OVERRIDE_KEY), queries, sample.seed)
    denoise_once(probed, sample)
    if not measured:
        raise ValueError(f"Nothing could be measured: {NOTHING_SEEN}.")
    return {block: Locality.mean(localities) for block, localities in measured.items()}


def denoise_once(model: ModelPatcher, sample: Sample) -> Tensor:
    """Add noise to the sample's latent and let the host denoise it in one step.

    Returns:
        The model's idea of the clean latent.

    Raises:
        ValueError: The latent is empty although part of it should be seen.
    """
    latent = sample.latent["samples"]
    if sample.at_percent > 0 and not latent.count_nonzero():
        raise ValueError(
            "The latent is empty, and attention on noise alone says little. Connect a picture (VAE "
            "Encode, or the latent that a sampler has finished), or set at_percent to 0."
        )
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    noise = comfy.sample.prepare_noise(latent, sample.seed)
    return comfy.sample.sample_custom(
        model,
        noise,
        1.0,  # without guidance: the one conditioning is all that runs
        comfy.samplers.sampler_object("euler"),
        torch.tensor([sigma_at(model, sample.at_percent), 0.0]),
        sample.conditioning,
        sample.conditioning,
        latent,
        disable_pbar=True,
        seed=sample.seed,
    )


def sigma_at(model: ModelPatcher, at_percent: float) -> float:
    """Return the noise level at a share of the schedule, at its end the smallest above 0."""
    sampling = model.get_model_object("model_sampling")
    return max(float(sampling.percent_to_sigma(at_percent)), float(sampling.sigma_min))


def _recording(
    add: OnMeasured, previous: Override | None, queries: int | None, seed: int
) -> Override:
    """Return an override that measures a call and hands it on unchanged.

    CLEAR's own override calls it with the options that hold the geometry, and with a query that
    carries the scale of proportional attention.
    """

    def record(func: Override, *args: Any, **kwargs: Any) -> Tensor:
        options = kwargs["transformer_options"]
        model_call: ModelCall = options[CALL_KEY]
        if _is_pictures(options, model_call):
            call = read_call(*args, **kwargs)
            layout = model_call.geometry.layout(call.k.shape[2])
            block = running_block(options, model_call.family, layout)
            whole = None if layout is None else _whole(call, model_call.geometry, layout)
            if layout is not None and block is not None and whole is not None:
                q, k, mask = whole
                found = measure_locality(
                    q, k, layout, scale=call.scale, mask=mask, queries=queries, seed=seed
                )
                add(block, found)
        return func(*args, **kwargs) if previous is None else previous(func, *args, **kwargs)

    return record


def _is_pictures(options: Mapping[str, Any], model_call: ModelCall) -> bool:
    """Return whether an attention call is the picture's; CLEAR's own override has counted it."""
    running: RunningBlock | None = options.get(BLOCK_KEY)
    if running is not None and model_call.acts:
        return running.attention is not None
    return is_pictures(options, model_call.family)


def _whole(
    call: HostCall, geometry: Geometry, layout: TokenLayout
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return queries, keys and mask of a layout, or None where they are no joint self-attention.

    Only the picture's queries are measured: in place of others that are missing stand zeros. Keys
    that several heads share are repeated.
    """
    (_, heads, rows, _), k, mask = call.q.shape, call.k, call.mask
    asked = geometry.queries(layout, rows)
    if not geometry.are_own(k.shape[2]) or asked is None or not call.fits:
        return None
    missing = layout.tokens - rows
    front, behind = (0, missing) if asked.first_text == 0 else (missing, 0)
    if mask is not None and mask.shape[-2] == rows:
        mask = F.pad(mask, (0, 0, front, behind))
    q = F.pad(call.q, (0, 0, front, behind))
    return q, k.repeat_interleave(heads // k.shape[1], dim=1), mask


def _remarks(model: ModelPatcher, sample: Sample, queries: int) -> tuple[str, ...]:
    remark = (
        f"Measured after {sample.at_percent:.4g} of the schedule (sigma "
        f"{sigma_at(model, sample.at_percent):.4g}), on "
        f"{f'{queries} image tokens at most' if queries else 'every image token'}."
    )
    if settings_of(model).local is None:
        return (remark,)
    return (remark, "The window of the CLEAR node on this model was ignored: attention was full.")
