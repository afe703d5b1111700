"""What people read of a choice of radii: each block's, what they cost, and what they gain."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .choose import Choice

AS_GOOD = 0.95
"""Share of one radius' error from which on a choice is not worth a word of praise."""


def chosen_lines(choice: Choice[str], seconds: tuple[float, float] | None = None) -> Sequence[str]:
    """Return a choice as lines of text.

    Args:
        choice: By the blocks' names.
        seconds: What a step takes with full attention, and with this choice, or None.
    """
    one, width = choice.one_radius, max(5, *map(len, choice.radii))
    against = f"at radius {one}"
    return [
        "",
        f"Chosen for {choice.budget:.4g} of full attention's work: {choice.share:.1%} of the pairs "
        "remain, text included.",
        *_seconds(seconds),
        "Error: the change of the attention's output as a share of it; in brackets, the block's "
        "part of the squared errors that reach the model's velocity.",
        "",
        f"{'block':{width}}  {'radius':>10}  {'error':>16}  {against:>16}",
        *(_row(choice, name, width) for name in choice.radii),
        "",
        *_conclusions(choice),
    ]


def _row(choice: Choice[str], name: str, width: int) -> str:
    radius, one = choice.radii[name], choice.one_radius
    parts = (
        _error(choice, name, radius, choice.error_of(choice.radii)),
        _error(choice, name, one, choice.error_of(dict.fromkeys(choice.radii, one))),
    )
    return f"{name:{width}}  {radius:>10}  {parts[0]:>16}  {parts[1]:>16}"


def _error(choice: Choice[str], name: str, radius: int, whole: float) -> str:
    cost = choice.costs[name]
    part = cost.error(radius) / whole if whole else 0.0
    return f"{cost.errors.relative(radius):.1%} ({part:.0%})"


def _seconds(seconds: tuple[float, float] | None) -> Sequence[str]:
    if seconds is None:
        return ()
    full, chosen = seconds
    return (
        f"CLEAR Plan expects {chosen:.3g} s for a call of the model, and {full:.3g} s with full "
        "attention.",
    )


def _conclusions(choice: Choice[str]) -> Sequence[str]:
    """Return what follows, in a sentence each."""
    if not choice.reached:
        return (
            f"A budget of {choice.budget:.4g} cannot be reached: radius 1 needs {choice.share:.4g} "
            "of full attention's work, as text sees and is seen by everything. Take a larger "
            "budget, a larger picture, or a shorter prompt.",
        )
    one, gain = choice.one_radius, choice.gain
    lines = [
        f"At the same work, one radius of {one} for all blocks makes an error "
        f"{math.sqrt(1 / gain):.2f} times as large."
        if 0 < gain < AS_GOOD
        else f"At the same work, one radius of {one} for all blocks is as good."
    ]
    if choice.enough:
        lines.append("Nothing is left to gain: a larger budget would change the picture no more.")
    return lines
