"""Measure how local a model's attention is on a real sample, and choose a radius per block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...families.block_text import format_blocks, format_radii, parse_blocks
from ...families.names import Block
from ...layout import TokenLayout
from ...locality.choose import choose_radii
from ...locality.figure import draw
from ...locality.measure import Locality
from ...locality.report import LocalityReport
from ..core import host
from ..core.blocks import block_counts
from ..core.calls.model_call import OVERRIDE_KEY
from ..core.patch import settings_of, with_settings, with_window
from ..core.pictures import figure_or_message
from ..core.report import NOTHING_SEEN
from ..families import plain_module, require_family
from .recording import Measured, recording
from .response import Responses
from .sample import Sample, denoise_once, sigma_at

StepSeconds = Callable[[ModelPatcher, TokenLayout, Mapping[Block, int]], tuple[float, float]]
"""Returns what a step takes with full attention, and with a radius per block."""

IGNORED = "The window of the CLEAR node on this model was ignored: attention was full."
NO_RESPONSE = (
    "How the blocks respond to their attention could not be measured: the errors are those of the "
    "attentions' output, before projection and gate."
)


def report_locality(
    model: ModelPatcher,
    sample: Sample,
    *,
    queries: int,
    share: float,
    radius: int,
    budget: float = 0.25,
    levels: int = 1,
    seconds: StepSeconds | None = None,
) -> tuple[Tensor, str, str, str]:
    """Probe a model, judge a radius, and choose one for each block.

    Args:
        model: A MODEL, left as it is; the window of a CLEAR node on it is ignored.
        sample: What the model denoises.
        queries: Image tokens whose attention is measured, 0 for all.
        share: Of an image token's attention that is to be kept, 0 to 1.
        radius: To be judged, in tokens.
        budget: Share of full attention's work that the chosen radii may need, above 0.
        levels: Noise levels to measure at, see `Sample.spread`.
        seconds: Tells what a step takes, or None.

    Returns:
        The plot ``[1, height_px, width_px, 3]``, the table, the blocks in which the radius keeps
        less than the share, as the input ``dense_blocks`` of other nodes takes them, and the
        chosen radii, as their input ``radii`` does.

    Raises:
        ValueError: The model or the latent cannot be probed; the message says why.
    """
    samples = sample.spread(levels)
    found = probe_windows(model, samples, queries or None)
    names = {block: format_blocks([block]) for block in found}
    choice = choose_radii({names[block]: each.cost for block, each in found.items()}, budget)
    radii = {block: choice.radii[name] for block, name in names.items()}
    layout = max((each.layout for each in found.values()), key=lambda layout: layout.tokens)
    report = LocalityReport(
        {names[block]: each.locality for block, each in found.items()},
        share,
        radius,
        _remarks(model, samples, queries, found),
        choice,
        None if seconds is None else seconds(model, layout, radii),
    )
    dense = format_blocks(block for name in report.too_small_for() for block in parse_blocks(name))
    plot = figure_or_message(lambda: draw(report))[None]
    return plot, report.table(), dense, format_radii(radii)


def probe(model: ModelPatcher, sample: Sample, queries: int | None = None) -> dict[Block, Locality]:
    """Measure where the attention of every block looks, in one sampling step.

    Arguments and errors are those of `probe_windows`.
    """
    found = probe_windows(model, [sample], queries)
    return {block: each.locality for block, each in found.items()}


def probe_windows(
    model: ModelPatcher, samples: Sequence[Sample], queries: int | None = None
) -> dict[Block, Measured]:
    """Measure the attention of every block, and what windows do to it, in a step per sample.

    Of several samples each has a part of the queries, and measures the responses of a part of the
    blocks: they take not much longer than one, but for the step.

    Args:
        model: A MODEL, left as it is.
        samples: What it denoises.
        queries: Image tokens whose attention is measured, None for all.

    Raises:
        ValueError: The latent is empty, the architecture is unknown, or no attention was seen.
    """
    counts = block_counts(model)
    progress = comfy.utils.ProgressBar(sum(counts.values()) * len(samples))
    measured: dict[Block, list[Measured]] = {}

    def add(block: Block, found: Measured) -> None:
        measured.setdefault(block, []).append(found)
        progress.update(1)

    probed = with_settings(with_window(model, None), name_blocks=True)
    options = probed.model_options["transformer_options"]
    previous = options.get(OVERRIDE_KEY)
    some = queries and -(-queries // len(samples))
    for turn, sample in enumerate(samples):
        responses = Responses(host.outside_recording)
        record = recording(add, previous, some, sample.seed + turn, responses)
        options[OVERRIDE_KEY] = record
        with responses.watched(_blocks_of_turn(model, turn, len(samples))):
            denoise_once(probed, sample)
    if not measured:
        raise ValueError(f"Nothing could be measured: {NOTHING_SEEN}.")
    return _of_one_unit({block: Measured.mean(found) for block, found in measured.items()})


def _blocks_of_turn(model: ModelPatcher, turn: int, turns: int) -> list[Any]:
    """List the blocks whose responses are measured with one of several samples."""
    network = plain_module(model.get_model_object("diffusion_model"))
    return [
        block
        for blocks in require_family(model).blocks
        for index, block in enumerate(blocks.of(network))
        if index % turns == turn
    ]


def _of_one_unit(found: dict[Block, Measured]) -> dict[Block, Measured]:
    """Return measurements that can be compared: with the responses of all blocks, or of none."""
    if all(each.errors.gain is not None for each in found.values()):
        return found
    return {
        block: Measured(each.locality, replace(each.errors, gain=None), each.layout, each.width)
        for block, each in found.items()
    }


def _remarks(
    model: ModelPatcher, samples: Sequence[Sample], queries: int, found: Mapping[Block, Measured]
) -> tuple[str, ...]:
    places = " and ".join(
        f"{sample.at_percent:.4g} of the schedule (sigma {sigma_at(model, sample.at_percent):.4g})"
        for sample in samples
    )
    several = "" if len(samples) == 1 else " in all"
    remarks = [
        f"Measured after {places}, on "
        f"{f'{queries} image tokens at most{several}' if queries else 'every image token'}."
    ]
    if settings_of(model).local is not None:
        remarks.append(
            "The window of the CLEAR node on this model was ignored: attention was full."
        )
    if any(each.errors.gain is None for each in found.values()):
        remarks.append(NO_RESPONSE)
    return tuple(remarks)
