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
from ..core.blocks import block_counts
from ..core.calls.model_call import OVERRIDE_KEY
from ..core.patch import settings_of, with_settings, with_window
from ..core.pictures import figure_or_message
from ..core.report import NOTHING_SEEN
from ..families import plain_module, require_family
from .recording import Add, Measured, changing, recording
from .response import Change, gains_of, squares_by_token
from .sample import Sample, denoise_once, sigma_at

StepSeconds = Callable[[ModelPatcher, TokenLayout, Mapping[Block, int]], tuple[float, float]]
"""Returns what a step takes with full attention, and with a radius per block."""

IGNORED = "The window of the CLEAR node on this model was ignored: attention was full."
NOT_FINITE = (
    "The model's prediction must be finite, got NaN or infinity: look for a damaged latent or "
    "model, or a dtype that is too small for it."
)
SEAMLESS = (
    "CLEAR Seamless: the work counts that windows wrap around, the errors do not, and are a little "
    "too large at the picture's edges."
)
NO_RESPONSE = (
    "How the model responds to its attentions could not be measured: their errors count alike, "
    "whatever becomes of them behind projections and gates."
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
    settings = settings_of(model)
    wraps = (settings.wrap_height, settings.wrap_width)
    costs = {names[block]: replace(each.cost, wraps=wraps) for block, each in found.items()}
    choice = choose_radii(costs, budget)
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
    found: Found = {}
    _measure(model, sample, queries, _collecting(model, found))
    return {block: each.locality for block, each in _means(found).items()}


def probe_windows(
    model: ModelPatcher, samples: Sequence[Sample], queries: int | None = None
) -> dict[Block, Measured]:
    """Measure the attention of every block, and what windows do to the model, in two steps each.

    Args:
        model: A MODEL, left as it is.
        samples: What it denoises; each of them has a part of the queries.
        queries: Image tokens whose attention is measured, None for all.

    Raises:
        ValueError: The latent is empty, the architecture is unknown, or no attention was seen.
    """
    found: Found = {}
    add = _collecting(model, found, len(samples))
    for turn, sample in enumerate(samples):
        before = {block: len(each) for block, each in found.items()}
        some = queries and -(-queries // len(samples))
        own = replace(sample, seed=(sample.seed + turn) % 2**64)
        clean = _measure(model, own, some, add)
        if not clean.isfinite().all():
            raise ValueError(NOT_FINITE)
        # The first call of each block in this step: others see areas of the picture.
        first = {block: before.get(block, 0) for block in found}
        changes = {block: found[block][at].change for block, at in first.items()}
        for block, gain in _responses(model, own, clean, changes).items():
            found[block][first[block]] = found[block][first[block]].with_gain(gain)
    return _of_one_unit(_means(found))


Found = dict[Block, list[Measured]]


def _collecting(model: ModelPatcher, found: Found, times: int = 1) -> Add:
    progress = comfy.utils.ProgressBar(times * sum(block_counts(model).values()))

    def add(block: Block, measured: Measured) -> None:
        found.setdefault(block, []).append(measured)
        progress.update(1)

    return add


def _means(found: Found) -> dict[Block, Measured]:
    if not found:
        raise ValueError(f"Nothing could be measured: {NOTHING_SEEN}.")
    return {block: Measured.mean(each) for block, each in found.items()}


def _measure(model: ModelPatcher, sample: Sample, queries: int | None, add: Add) -> Tensor:
    """Measure all attentions of a step, and return what the model makes of the sample."""
    probed, options = _probed(model)
    blocks = [(kind, at) for kind, count in block_counts(model).items() for at in range(count)]
    previous = options.get(OVERRIDE_KEY)
    options[OVERRIDE_KEY] = recording(add, previous, queries, sample.seed, blocks)
    return denoise_once(probed, sample)


def _responses(
    model: ModelPatcher, sample: Sample, clean: Tensor, changes: Mapping[Block, Change | None]
) -> dict[Block, float]:
    """Measure the model's responses in a second step, against what the first one came to."""
    given = {block: change for block, change in changes.items() if change is not None}
    probed, options = _probed(model)
    options[OVERRIDE_KEY], applied = changing(given, options.get(OVERRIDE_KEY))
    changed = denoise_once(probed, sample)
    before, after = (_velocity(model, sample, each) for each in (clean, changed))
    return gains_of(applied, squares_by_token(before, after, _patch(model)))


def _probed(model: ModelPatcher) -> tuple[ModelPatcher, dict[str, Any]]:
    """Return a clone whose blocks are named and whose attention is full, with its options."""
    probed = with_settings(with_window(model, None), name_blocks=True)
    return probed, probed.model_options["transformer_options"]


def _velocity(model: ModelPatcher, sample: Sample, clean: Tensor) -> Tensor:
    """Return the velocity that leads to a clean latent, but for what all have in common."""
    scaled: Tensor = model.get_model_object("latent_format").process_in(clean)
    return scaled / sigma_at(model, sample.at_percent)


def _patch(model: ModelPatcher) -> int:
    """Return the edge of a token in latent pixels."""
    network = plain_module(model.get_model_object("diffusion_model"))
    return require_family(model).patch(network)


def _of_one_unit(found: dict[Block, Measured]) -> dict[Block, Measured]:
    """Return measurements that can be compared: with the responses of all blocks, or of none."""
    if all(each.errors.gain is not None for each in found.values()):
        return found
    return {block: each.with_gain(None) for block, each in found.items()}


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
        remarks.append(IGNORED)
    if any(each.errors.gain is None for each in found.values()):
        remarks.append(NO_RESPONSE)
    if settings_of(model).wrap_height or settings_of(model).wrap_width:
        remarks.append(SEAMLESS)
    return tuple(remarks)
