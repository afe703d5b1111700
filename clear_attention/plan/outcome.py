"""A plan held against what a run then took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..families.names import Block
from ..units import gib
from .cost import Cost
from .report import Plan


@dataclass(frozen=True)
class TimedCall:
    """One call of a model.

    Attributes:
        batch: Pictures in the call.
        height: Of the grid, in tokens.
        width: Likewise.
        radius: Of the window that was applied, None for full attention.
        seconds: How long it took.
        devices: That computed it together.
        radii: Of the blocks whose window is another one.
    """

    batch: int
    height: int
    width: int
    radius: int | None
    seconds: float
    devices: int = 1
    radii: Mapping[Block, int] = field(default_factory=dict)


def outcome(plan: Plan, calls: Sequence[TimedCall], peak: int | None = None) -> list[str]:
    """Return lines that compare a plan with a run.

    Args:
        plan: What was expected.
        calls: What the run did, in its order.
        peak: Bytes at the run's peak, weights included, or None where nobody counts them.
    """
    timed = [call for call in calls if _expected_seconds(plan, call) is not None]
    if not timed:
        return [_nothing_to_compare(plan, calls)]
    # The first call of a run also moves weights and warms up.
    steady = timed[1:] or timed
    best = min(steady, key=lambda call: call.seconds / call.batch)
    seconds = _expected_seconds(plan, best)
    assert seconds is not None
    predicted = seconds * best.batch / plan.job.batch
    what = "full attention"
    if best.radius is not None:
        what = f"CLEAR r = {plan.network.radius_text(plan.job)}"
    if best.devices > 1:
        what += f", {best.devices} devices"
    lines = [
        f"Plan and run, {what}: {predicted:.3g} s per step expected, {best.seconds:.3g} s measured "
        f"({_deviation(predicted, best.seconds)}), the best of {len(steady)} calls of "
        f"{best.batch} picture{'s' if best.batch > 1 else ''}."
    ]
    if best.devices > 1:  # the memory of one device's part is not planned
        return lines
    if peak is not None:
        expected = plan.budget.weights + _memory(plan, calls) * best.batch // plan.job.batch
        lines.append(
            f"Memory at the peak: {gib(expected)} expected, {gib(peak)} measured "
            f"({_deviation(expected, peak)})."
        )
    return lines


def _expected_seconds(plan: Plan, call: TimedCall) -> float | None:
    """Return the expected time of a call, or None if it is not of the planned kind."""
    cost, devices = _planned_cost(plan, call), plan.devices
    if cost is None or call.devices != (devices.count if devices.share else 1):
        return None
    if call.devices == 1:
        return cost.seconds
    shared = plan.on_devices(plan.job.full() if call.radius is None else plan.job.local())
    return None if shared is None else shared.seconds


def _planned_cost(plan: Plan, call: TimedCall) -> Cost | None:
    """Return what one device needs for a call, or None if it is not of the planned kind."""
    layout, window = plan.job.layout, plan.job.window
    if (call.height, call.width) != (layout.height, layout.width):
        return None
    if call.radius is None:
        return plan.full
    if window is None or (call.radius, call.radii) != (window.radius, plan.job.radii):
        return None
    return plan.local


def _memory(plan: Plan, calls: Sequence[TimedCall]) -> int:
    """Return the bytes that were expected at the peak of all calls of the planned kinds."""
    costs = [cost for call in calls if (cost := _planned_cost(plan, call)) is not None]
    return max(plan.held(each) for each in costs)


def _nothing_to_compare(plan: Plan, calls: Sequence[TimedCall]) -> str:
    if not calls:
        return "Plan and run: the model was not called."
    layout, call = plan.job.layout, calls[-1]
    radius = "full attention" if call.radius is None else f"radius {call.radius}"
    radius = f"{radius}, others for some blocks" if call.radii else radius
    planned = f"a grid of {layout.height} x {layout.width} tokens"
    had = f"{call.height} x {call.width} with {radius}"
    devices = plan.devices.count if plan.devices.share else 1
    if devices != call.devices:
        planned, had = f"{planned} on {_devices(devices)}", f"{had} on {_devices(call.devices)}"
    return f"Plan and run: planned was {planned}, the run had {had}. Plan again with these."


def _devices(number: int) -> str:
    return f"{number} device{'s' if number > 1 else ''}"


def _deviation(expected: float, measured: float) -> str:
    percent = 100 * (expected / measured - 1)
    if abs(percent) < 0.5:
        return "as expected"
    return f"the plan is {abs(percent):.0f} % too {'high' if percent > 0 else 'low'}"
