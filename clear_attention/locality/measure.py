"""How local attention is: the mass that image queries put within each radius.

A measurement of full attention, to choose a radius before any window is applied: the share of its
attention that an image token would keep under CLEAR, which always shows it text and extra tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import TokenLayout
from ..partial import PLAIN_SCORES, scaled_scores
from ..precision import accumulation_dtype
from ..window import radius_to_see

# Shapes: B batch, H heads, L tokens, D head_dim, M queries used, N = Y X image tokens, R radii.

Watcher = Callable[[Tensor, Tensor, Tensor], None]
"""Is given some queries ``[M]``, their probabilities ``[B, H, M, L]``, and the radius at which each
of them sees each token ``[M, L]``, 0 if at any."""


@dataclass(frozen=True, eq=False)
class Locality:
    """Where the image queries of one attention layer look, as a mean over the queries used.

    R is the smallest radius that covers the grid. Everything adds up to 1 for each head.

    Attributes:
        seen_by_all: ``[H]``, mass on text and extra tokens, which no window hides.
        first_seen: ``[H, R]``, mass on the image tokens that radius r sees and r - 1 does not, at
            index r - 1. Radii are integers, so this loses nothing against every squared distance.
    """

    seen_by_all: Tensor
    first_seen: Tensor

    @property
    def covering_radius(self) -> int:
        """Smallest radius that hides nothing."""
        return self.first_seen.shape[1]

    def kept(self) -> Tensor:
        """Return ``[H, R]``: the share of the whole mass that CLEAR keeps at the radii 1 to R."""
        return self.seen_by_all[:, None] + self.first_seen.cumsum(1)

    def kept_of_image(self) -> Tensor:
        """Return ``[H, R]``: the share of the mass on image tokens alone; 1 where there is none."""
        within = self.first_seen.cumsum(1)
        total = within[:, -1:]
        return torch.where(total > 0, within / total, torch.ones_like(within))

    def kept_at(self, radius: int) -> Tensor:
        """Return ``[H]``: the share of the whole mass that CLEAR keeps at one radius."""
        return self.kept()[:, min(radius, self.covering_radius) - 1]

    def kept_of_image_at(self, radius: int) -> Tensor:
        """Return ``[H]``: the share of the mass on image tokens that one radius keeps."""
        return self.kept_of_image()[:, min(radius, self.covering_radius) - 1]

    def head_radii(self, share: float) -> Tensor:
        """Return ``[H]`` integers: the smallest radius at which each head keeps the share."""
        return self._smallest(self.kept(), share)

    def block_radius(self, share: float) -> int:
        """Return the smallest radius at which the heads keep the share on average."""
        return int(self._smallest(self.kept().mean(0), share))

    def _smallest(self, kept: Tensor, share: float) -> Tensor:
        # Rounding may leave the last radius, which keeps everything, just below a share of 1.
        return ((kept < share).sum(-1) + 1).clamp(max=self.covering_radius)

    @staticmethod
    def mean(localities: Sequence[Locality]) -> Locality:
        """Average several measurements of one layer; their grids may differ."""
        radius = max(each.covering_radius for each in localities)
        padded = [F.pad(each.first_seen, (0, radius - each.covering_radius)) for each in localities]
        seen_by_all = torch.stack([each.seen_by_all for each in localities])
        return Locality(seen_by_all.mean(0), torch.stack(padded).mean(0))


def measure_locality(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    queries: int | None = None,
    seed: int = 0,
    watcher: Watcher | None = None,
) -> Locality:
    """Measure by distance what full attention of image queries looks at.

    Exact for the queries that are used. Time is queries x L; memory is linear in L.

    Args:
        q: ``[B, H, L, D]`` after qk-norm and RoPE, L = layout.tokens.
        k: ``[B, H, L, D]``, likewise.
        layout: Where text, grid and extra tokens lie in L.
        scale: Factor on the scores; None is ``D ** -0.5``.
        mask: What the caller hides on top: boolean (True is seen) or additive, broadcastable to
            ``[B, H, L, L]``, of two dimensions at least.
        queries: How many image queries to use, spread evenly; None is all of them.
        seed: Of the spread.
        watcher: Is given the probabilities of each chunk of queries, or None.

    Returns:
        The mean over batch and queries, on the CPU, in float32 (float64 for float64).

    Raises:
        ValueError: The tensors do not fit each other or the layout, or there is no query to use.
    """
    if q.shape != k.shape or q.shape[2] != layout.tokens:
        raise ValueError(
            f"q and k must be [B, H, {layout.tokens}, D] for this layout, got {list(q.shape)} and "
            f"{list(k.shape)}."
        )
    if queries is not None and queries < 1:
        raise ValueError(f"queries must be at least 1, got {queries}.")
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    used = spread_queries(layout, min(queries or layout.image, layout.image), seed)
    radii = _radii(layout)
    k = k.to(accumulation_dtype(k.dtype))  # once, not for each chunk
    mass = k.new_zeros(q.shape[1], 1 + covering_radius(layout))
    for chunk in used.split(max(1, PLAIN_SCORES // (q.shape[0] * q.shape[1] * layout.tokens))):
        probs = _probabilities(q, k, (chunk + layout.text).to(q.device), factor, mask)
        first_seen = _first_seen(chunk, layout, radii)
        mass += _by_radius(probs, first_seen, len(mass[0]))
        if watcher is not None:
            watcher(chunk, probs, first_seen)
    mass = (mass / (q.shape[0] * len(used))).cpu()
    return Locality(seen_by_all=mass[:, 0], first_seen=mass[:, 1:])


def covering_radius(layout: TokenLayout) -> int:
    """Return the smallest radius that hides nothing of a grid."""
    return int(_radii(layout).max())


def spread_queries(layout: TokenLayout, count: int, seed: int = 0) -> Tensor:
    """Return `count` distinct image tokens, 0 to layout.image - 1: one from each of equal runs."""
    edges = torch.arange(count + 1) * layout.image // count
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(count, generator=generator, dtype=torch.float64) * edges.diff()
    return edges[:-1] + inside.long()


def _radii(layout: TokenLayout) -> Tensor:
    """Return ``[height, width]``: the smallest radius that sees so many rows and columns away."""
    return radius_to_see(torch.arange(layout.height)[:, None], torch.arange(layout.width))


def _first_seen(chunk: Tensor, layout: TokenLayout, radii: Tensor) -> Tensor:
    """Return ``[M, L]``: the radius at which each query sees each token, 0 if at any."""
    rows, columns = torch.arange(layout.height), torch.arange(layout.width)
    dy_MY = (rows - (chunk // layout.width)[:, None]).abs()
    dx_MX = (columns - (chunk % layout.width)[:, None]).abs()
    image_MN = radii[dy_MY[:, :, None], dx_MX[:, None, :]].flatten(1)
    return F.pad(image_MN, (layout.text, layout.extra))


def _by_radius(probs_BHML: Tensor, first_seen_ML: Tensor, bins: int) -> Tensor:
    """Return ``[H, bins]``: the probabilities added up by radius, over batch and queries."""
    index = first_seen_ML.to(probs_BHML.device).expand_as(probs_BHML)
    by_query = probs_BHML.new_zeros(*probs_BHML.shape[:3], bins)
    return by_query.scatter_add_(-1, index, probs_BHML).sum((0, 2))


def _probabilities(q: Tensor, k: Tensor, rows: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """Return ``[B, H, M, L]``: the softmax of some rows."""
    scores = scaled_scores(q[:, :, rows], k, None, scale)
    if mask is not None:
        scores = _hide(scores, mask if mask.shape[-2] == 1 else mask[..., rows, :])
    return torch.softmax(scores, -1)


def _hide(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
