"""Choose a radius per block: the least error that a budget of work buys.

Blocks share the budget. Of all steps from one radius of a block to a larger one, those come first
that remove most error for their work, along the lower convex hull of each block; what is left of
the budget goes into a part of the first step that it cannot pay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

from ..layout import TokenLayout
from ..pairs import all_pairs, visible_pairs
from ..window import Window
from .errors import WindowErrors

NEGLIGIBLE = 1e-5
"""Share of the squared output below which errors are no longer worth work: about the rounding of
bfloat16, whose steps are 2**-8."""

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Cost:
    """What the windows of one block cost.

    Attributes:
        errors: Of its attention, by radius.
        layout: Where the tokens of its attention lie.
        width: Of all its heads together, by which its pairs count.
        wraps: Whether windows wrap around the height and the width.
    """

    errors: WindowErrors
    layout: TokenLayout
    width: int = 1
    wraps: tuple[bool, bool] = (False, False)

    @property
    def covering_radius(self) -> int:
        """Smallest radius that hides nothing."""
        return self.errors.radii[-1]

    @property
    def full(self) -> int:
        """Work of full attention."""
        return self.width * all_pairs(self.layout)

    def work(self, radius: int) -> int:
        """Return the work of a radius."""
        return self.width * visible_pairs(self.layout, Window(radius, *self.wraps))

    def error(self, radius: int) -> float:
        """Return the squared error of a radius."""
        return self.errors.in_model(radius)


@dataclass(frozen=True, eq=False)
class Choice(Generic[Name]):
    """A radius for each block.

    Attributes:
        costs: Of all blocks.
        radii: That were chosen.
        budget: Share of full attention's work that was to be kept.
        enough: Whether nothing is left to gain with more work.
    """

    costs: Mapping[Name, Cost]
    radii: Mapping[Name, int]
    budget: float
    enough: bool

    @cached_property
    def share(self) -> float:
        """Share of full attention's work that the choice needs."""
        return self.share_of(self.radii)

    @property
    def reached(self) -> bool:
        """Whether the choice keeps the budget; text alone may cost more."""
        return self.share <= self.budget

    @cached_property
    def one_radius(self) -> int:
        """The largest radius that all blocks could have for the same work, 1 at least."""
        radius, largest = 1, max(cost.covering_radius for cost in self.costs.values())
        while radius < largest and self.share_of(self._all(radius + 1)) <= self.share:
            radius += 1
        return radius

    @property
    def gain(self) -> float:
        """Share of the one radius' error that remains with the chosen ones."""
        before = self.error_of(self._all(self.one_radius))
        return self.error_of(self.radii) / before if before else 1.0

    def share_of(self, radii: Mapping[Name, int]) -> float:
        """Return the share of full attention's work that some radii need."""
        full = sum(cost.full for cost in self.costs.values())
        return sum(cost.work(radii[name]) for name, cost in self.costs.items()) / full

    def error_of(self, radii: Mapping[Name, int]) -> float:
        """Return the squared errors of some radii, added up."""
        return sum(cost.error(radii[name]) for name, cost in self.costs.items())

    def _all(self, radius: int) -> dict[Name, int]:
        return dict.fromkeys(self.costs, radius)


class _Step(NamedTuple):
    """From one radius of a block to a larger one."""

    per_work: float
    """Error that it removes for its work."""
    block: int
    before: int
    radius: int


def choose_radii(costs: Mapping[Name, Cost], budget: float) -> Choice[Name]:
    """Choose the radii whose errors add up to the least within a budget.

    The least but for the blocks that the budget's end meets, whose radius lies within a step.

    Args:
        costs: Of all blocks, whose errors have one unit.
        budget: Share of full attention's work, above 0, at most 1.

    Raises:
        ValueError: The budget is none, or there is no block.
    """
    if not costs or not 0 < budget <= 1:
        raise ValueError(
            f"choose_radii must get blocks and a budget above 0, at most 1, got {len(costs)} "
            f"blocks and {budget}."
        )
    blocks = list(costs.values())
    radii = [1] * len(blocks)
    left = budget * sum(each.full for each in blocks) - sum(each.work(1) for each in blocks)
    error = sum(each.error(1) for each in blocks)
    negligible = NEGLIGIBLE * sum(each.errors.output_in_model for each in blocks)
    steps = [step for index, each in enumerate(blocks) for step in _steps(index, each)]
    for step in sorted(steps, key=lambda step: -step.per_work):  # stable: a block's in their order
        if left <= 0 or error <= negligible:
            break
        block = blocks[step.block]
        if radii[step.block] != step.before:  # of a step before it only a part was paid
            continue
        radius = _affordable(block, step, left)
        left -= block.work(radius) - block.work(step.before)
        error -= block.error(step.before) - block.error(radius)
        radii[step.block] = radius
    return Choice(costs, dict(zip(costs, radii, strict=True)), budget, error <= negligible)


def _steps(index: int, block: Cost) -> Sequence[_Step]:
    """Return the steps along the lower convex hull of a block's errors over its work."""
    hull = [1]
    for radius in block.errors.radii[1:]:
        if _per_work(block, hull[-1], radius) <= 0:
            continue  # a larger window that gains nothing
        while len(hull) > 1 and _is_above(block, hull[-2], hull[-1], radius):
            hull.pop()
        hull.append(radius)
    return [
        _Step(_per_work(block, before, radius), index, before, radius)
        for before, radius in itertools.pairwise(hull)
    ]


def _per_work(block: Cost, before: int, radius: int) -> float:
    """Return the error that a larger radius removes, for its work."""
    removed = block.error(before) - block.error(radius)
    work = block.work(radius) - block.work(before)
    if work == 0:  # windows that wrap around see all of the grid before a plain one does
        return math.inf if removed > 0 else 0.0
    return removed / work


def _is_above(block: Cost, first: int, middle: int, last: int) -> bool:
    """Return whether the middle one of three radii lies on or above the line through the others."""
    return _per_work(block, middle, last) >= _per_work(block, first, middle)


def _affordable(block: Cost, step: _Step, left: float) -> int:
    """Return the largest radius of a step that a budget can pay, and that gains something."""
    most = left + block.work(step.before)
    radii = range(step.radius, step.before, -1)
    radius = next((one for one in radii if block.work(one) <= most), step.before)
    return radius if block.error(radius) < block.error(step.before) else step.before
