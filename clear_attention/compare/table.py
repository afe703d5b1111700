"""What people read of a comparison: aligned text that is Markdown too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .measurement import ANOTHER_SEED, Distance
from .summary import Comparison, Mean, Measure
from .velocity import LEVELS

NONE = "-"


def table(comparison: Comparison) -> str:
    """Return the means of all models: velocities, pictures, work, and what failed.

    A second number behind a mean is its standard error. *Of two seeds* is a distance as a share of
    the distance between full attention's pictures of two seeds.
    """
    names = [*comparison.names, ANOTHER_SEED]
    blocks = [
        _velocities(comparison, names),
        _pictures(comparison, names),
        _work(comparison, [comparison.teacher, *comparison.names]),
        *([_differences(comparison)] if len(comparison.names) > 1 else []),
        *([_faults(comparison)] if comparison.faults() else []),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def number(mean: Mean, form: Callable[[float], str] | None = None) -> str:
    """Return a mean with its standard error, where there is one."""
    if math.isnan(mean.value):
        return NONE
    form = form or form_of(mean.value)
    text = form(mean.value)
    return text if math.isnan(mean.error) else f"{text} ± {form(mean.error)}"


def form_of(value: float) -> Callable[[float], str]:
    """Return how a number of any size is written in few digits, and its error with it."""
    form = ".4f" if value == 0 or 1e-3 <= abs(value) < 1e3 else ".2g"
    return lambda number: f"{number:{form}}"


def percent(share: float) -> str:
    """Return a share in per cent, with a digit behind the point where it is small."""
    if math.isnan(share):
        return NONE
    return f"{100 * share:.1f} %" if abs(share) < 0.0995 else f"{100 * share:.0f} %"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows of cells out as a table, the first one as its head, the first cells to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = [("-" * (width - 1) + ":") if at else "-" * width for at, width in enumerate(widths)]
    head, *body = rows
    return [line(head), f"|{'|'.join(f' {each} ' for each in rule)}|", *map(line, body)]


def _velocities(comparison: Comparison, names: Sequence[str]) -> list[str]:
    head = ["velocity error", *(f"noise {level}" for level in LEVELS)]
    rows = [[*head, "mean", "of its power", "of two seeds"]]
    for name in names:
        at_levels = [_at(level) for level in range(len(LEVELS))]
        means = [number(comparison.mean(name, measure)) for measure in (*at_levels, _velocity)]
        power = comparison.mean(name, _power).value
        relative = comparison.mean(name, _velocity).value / power if power else math.nan
        rows.append([name, *means, percent(relative), percent(comparison.share(name, _velocity))])
    return aligned(rows)


def _pictures(comparison: Comparison, names: Sequence[str]) -> list[str]:
    share = "of two seeds"
    head = ["picture", "PSNR", share, "SSIM", share]
    for each in comparison.embeddings:
        head += [f"{each} distance", share]
    rows = [head]
    for name in names:
        decibels = comparison.mean(name, _squared).in_decibels()
        cells = [name, _decibels(decibels), percent(comparison.share(name, _squared))]
        ssim = number(comparison.mean(name, _ssim), lambda value: f"{value:.3f}")
        cells += [ssim, percent(comparison.share(name, _unlike))]
        for each in comparison.embeddings:
            measure = _embedding(each)
            cells += [
                number(comparison.mean(name, measure)),
                percent(comparison.share(name, measure)),
            ]
        rows.append(cells)
    return aligned(rows)


def _work(comparison: Comparison, names: Sequence[str]) -> list[str]:
    rows = [["work", "seconds", "speed", "pairs of attention", "pictures"]]
    whole = comparison.seconds(comparison.teacher).value
    for name in names:
        seconds = comparison.seconds(name)
        speed = f"{whole / seconds.value:.2f}x" if seconds.value else NONE
        text = number(seconds, lambda value: f"{value:.2f}")
        count = str(seconds.count)
        failed = sum(bool(one.fault) for one in comparison.measurements if one.name == name)
        count += f", {failed} failed" if failed else ""
        rows.append([name, text, speed, percent(comparison.pairs(name).value), count])
    return aligned(rows)


def _differences(comparison: Comparison) -> list[str]:
    first, *others = comparison.names
    rows = [[f"more than {first}", "velocity error", "mean squared difference", "1 - SSIM"]]
    for name in others:
        rows.append([name, *(number(comparison.difference(name, first, each)) for each in PAIRED)])
    return aligned(rows)


def _faults(comparison: Comparison) -> list[str]:
    return [
        "Not compared, and in no mean:",
        *(f"- {one.name}, picture {one.picture}: {one.fault}" for one in comparison.faults()),
    ]


def _decibels(mean: Mean) -> str:
    if mean.value == math.inf:
        return "equal"
    return number(mean, lambda value: f"{value:.1f}") + ("" if math.isnan(mean.value) else " dB")


def _at(level: int) -> Measure:
    return lambda distance: distance.velocity[level]


def _velocity(distance: Distance) -> float:
    return distance.mean_velocity


def _power(distance: Distance) -> float:
    return distance.mean_power


def _squared(distance: Distance) -> float:
    return distance.squared


def _ssim(distance: Distance) -> float:
    return distance.ssim


def _unlike(distance: Distance) -> float:
    return 1 - distance.ssim


def _embedding(name: str) -> Measure:
    return lambda distance: distance.embeddings[name]


PAIRED = (_velocity, _squared, _unlike)
