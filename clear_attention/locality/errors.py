"""What a window costs: by how much it changes an attention's output, for many radii in one pass.

Attention with a window of radius r is the mean of the values over what the window keeps,

    o_r = N_r / Z_r,   N_r = sum of p_j v_j,   Z_r = sum of p_j   over the keys j inside of r,

with p the probabilities of full attention. Windows of growing radius only add keys, so that one
sum over each ring between two radii is enough for all of them.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..layout import TokenLayout
from ..precision import accumulation_dtype
from ..spread import spread

# Shapes: B batch, H heads, L tokens, D head_dim, M queries of a chunk, R radii.

PER_OCTAVE = 2


@dataclass(frozen=True, eq=False)
class WindowErrors:
    """The changes that windows make to the output of one attention layer.

    Means over batch and queries of squared lengths, all heads together; float64 on the CPU.

    Attributes:
        radii: In tokens, ascending; the last one covers the grid and changes nothing.
        squared: ``[R]``, of the change of the attention's output.
        output: Of that output itself with full attention.
        gain: Squared change of the model's velocity per squared change of the attention's output,
            or None where it was not measured.
    """

    radii: tuple[int, ...]
    squared: Tensor
    output: float
    gain: float | None = None

    def relative(self, radius: int) -> float:
        """Return the length of the change as a share of that of the attention's output."""
        return math.sqrt(self._squared_at(radius) / self.output) if self.output else 0.0

    def in_model(self, radius: int) -> float:
        """Return the squared change of the model's velocity at any radius.

        Without a gain it is that of the attention's output.
        """
        return self._in_model(self._squared_at(radius))

    @property
    def output_in_model(self) -> float:
        """What the attention's whole output is to the model, squared."""
        return self._in_model(self.output)

    def _in_model(self, squared: float) -> float:
        return squared if self.gain is None else squared * self.gain

    def _squared_at(self, radius: int) -> float:
        """Read the curve between two radii that were measured.

        There it follows a power of the radius, as it falls over several orders of magnitude, and
        below the covering radius a straight line, which ends in 0.
        """
        index = bisect.bisect_left(self.radii, radius)
        if index >= len(self.radii):
            return 0.0
        last = float(self.squared[index])
        if index == 0 or self.radii[index] == radius:
            return last
        first, (low, high) = float(self.squared[index - 1]), self.radii[index - 1 : index + 1]
        if min(first, last) <= 0:
            return first + (last - first) * (radius - low) / (high - low)
        share = math.log(radius / low) / math.log(high / low)
        return first ** (1 - share) * last**share

    @staticmethod
    def mean(errors: Sequence[WindowErrors]) -> WindowErrors:
        """Average several measurements of one layer; their grids may differ."""
        radii = max((each.radii for each in errors), key=lambda radii: radii[-1])
        squared = [[each._squared_at(radius) for radius in radii] for each in errors]
        gains = [each.gain for each in errors if each.gain is not None]
        return WindowErrors(
            radii,
            torch.tensor(squared, dtype=torch.float64).mean(0),
            sum(each.output for each in errors) / len(errors),
            sum(gains) / len(gains) if gains else None,
        )


def candidate_radii(covering_radius: int) -> tuple[int, ...]:
    """Return the radii to measure: two to an octave, and the one that covers the grid.

    Few enough that one pass is cheap, and that the blocks of a model share their windows.

    Args:
        covering_radius: Smallest radius that hides nothing.
    """
    steps = range(PER_OCTAVE * covering_radius.bit_length() + 1)
    radii = {round(2 ** (step / PER_OCTAVE)) for step in steps}
    return (*sorted(radius for radius in radii if radius < covering_radius), covering_radius)


class ErrorSum:
    """Adds up the changes, chunk by chunk of the queries; a watcher of `measure_locality`.

    Args:
        v: ``[B, H, L, D]``, the values.
        layout: Where text, grid and extra tokens lie in L.
        radii: To measure, ascending; the last one covers the grid.
        every: Use one of so many queries: a product per radius takes longer than the masses.
    """

    def __init__(
        self, v: Tensor, layout: TokenLayout, radii: Sequence[int], every: int = 1
    ) -> None:
        self._v = v.to(accumulation_dtype(v.dtype))  # once, not for each chunk
        self._layout, self._radii, self._every = layout, tuple(radii), every
        self._squares = torch.zeros(len(radii) + 1, dtype=torch.float64)
        self._tokens: list[Tensor] = []
        self._changes: list[Tensor] = []

    def __call__(self, chunk: Tensor, probs_BHML: Tensor, first_seen_ML: Tensor) -> None:
        """Take the probabilities of some queries.

        Args:
            chunk: ``[M]``, which image tokens ask.
            probs_BHML: Of all keys.
            first_seen_ML: The radius at which each query sees each key, 0 if at any.
        """
        chunk, probs_BHML = chunk[:: self._every], probs_BHML[:, :, :: self._every]
        first_seen_ML = first_seen_ML[:: self._every].contiguous()
        rings = torch.bucketize(first_seen_ML, torch.tensor(self._radii)).to(probs_BHML.device)
        shown = self._shown(self._queries, len(chunk)).to(probs_BHML.device)[:, None]
        full = probs_BHML @ self._v
        changes, summed = torch.zeros_like(full), torch.zeros_like(full)
        mass = torch.zeros_like(full[..., :1])
        squares = [full.square().sum()]
        # Once: new memory takes longer than the product.
        ring = torch.empty(probs_BHML.shape, dtype=full.dtype, device=full.device)
        for index in range(len(self._radii) - 1):
            torch.mul(probs_BHML, (rings == index).to(ring.dtype), out=ring)
            summed += ring @ self._v
            mass += ring.sum(-1, keepdim=True)
            # A caller's mask may hide all that a window would show.
            change = torch.where(mass > 0, summed / mass, 0.0) - full
            squares.append(change.square().sum())
            changes = torch.where(shown == index, change, changes)
        squares.append(torch.zeros_like(squares[0]))  # of the covering radius, without rounding
        self._squares += torch.stack(squares).cpu().double()
        self._tokens.append(chunk)
        self._changes.append(changes)

    @property
    def _queries(self) -> int:
        return sum(map(len, self._tokens))

    def _shown(self, first: int, count: int) -> Tensor:
        """Return which radius each query shows; the covering one would show nothing.

        They are spread evenly over any every n-th query.
        """
        return (spread(first, count) * max(1, len(self._radii) - 1)).long()

    def errors(self) -> WindowErrors:
        """Return the means."""
        means = self._squares / (self._v.shape[0] * self._queries)
        return WindowErrors(self._radii, means[1:], float(means[0]))

    def changes(self) -> tuple[Tensor, Tensor]:
        """Return which image tokens asked, ``[M]``, and a change of each, ``[B, M, H D]``.

        Each query's is that of one radius: a mixture of what windows do to the output.
        """
        return torch.cat(self._tokens), torch.cat(self._changes, 2).transpose(1, 2).flatten(2)
