"""What a caller hides on top of the window, read once: masks over text keys alone are cheap.

Nearly all masks of picture models hide the padding of prompts: they are the same for all image
queries, and concern text keys only. Such a mask needs no scores of its own, but a bias on the keys
that all image queries share, or none at all where the keys are hidden from everyone: these are left
out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .layout import TokenLayout
from .queries import ALL, Queries

HIDDEN = -3e4
"""A bias at or below hides: no score makes up for it. float16 ends at -65504."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask in the form in which backends use it; made by `read_mask` or `general_mask`.

    Hidden is the lowest finite number: a query from which everything is hidden takes the mean of
    its keys, as it does in models that mask so, and nothing becomes NaN.

    Attributes:
        layout: Where the tokens lie.
        queries: Which of them ask.
        general: ``[B or 1, H or 1, M, L]``, added to all scores, or None: the fields below say all.
        others: ``[B or 1, H or 1, R or 1, L]``, added to the scores of text and extra queries, R.
        bias: ``[B or 1, H or 1, 1, kept]``, added to the scores of all image queries for those
            shared keys that are kept.
        kept: Places of these among text and extra keys, int64; None is all of them.
    """

    layout: TokenLayout
    queries: Queries
    general: Tensor | None = None
    others: Tensor | None = None
    bias: Tensor | None = None
    kept: Tensor | None = None

    @property
    def shared(self) -> int:
        """Number of text and extra keys that image queries see."""
        both = self.layout.text + self.layout.extra
        return both if self.kept is None else len(self.kept)

    def rows(self, text: bool) -> Tensor | None:
        """Return what is added to the scores of the text or else the extra queries."""
        layout, asked = self.layout, self.queries
        if self.general is not None:
            rows = asked.text_slice(layout) if text else asked.extra_slice(layout)
            return self.general[:, :, rows]
        if self.others is None or self.others.shape[2] == 1:
            return self.others
        count = asked.text_slice(layout).stop
        return self.others[:, :, :count] if text else self.others[:, :, count:]

    def dense(self) -> Tensor:
        """Return the whole mask, ``[B or 1, H or 1, M, L]``: for the reference."""
        if self.general is not None:
            return self.general
        layout, asked = self.layout, self.queries
        text, extra = self._shared().split((layout.text, layout.extra), -1)
        grid = text.new_zeros((*text.shape[:3], layout.image))
        zeros = text.new_zeros((1, 1, 1, layout.tokens))
        lines = [self.rows(text=True), torch.cat((text, grid, extra), -1), self.rows(text=False)]
        lines = [zeros if line is None else line for line in lines]
        alike = torch.broadcast_shapes(*(line.shape[:2] for line in lines))
        heights = (rows.stop - rows.start for rows in asked.positions(layout))
        rows = [line.expand(*alike, n, -1) for line, n in zip(lines, heights, strict=True)]
        return torch.cat(rows, 2)

    def _shared(self) -> Tensor:
        """Return what is added to the scores of text and extra keys, ``[B or 1, H or 1, 1, S]``."""
        like = next(x for x in (self.bias, self.others, self.kept) if x is not None)
        dtype = like.dtype if like.is_floating_point() else torch.float32
        both = (1, 1, 1, self.layout.text + self.layout.extra)
        if self.kept is None:
            return like.new_zeros(both, dtype=dtype) if self.bias is None else self.bias
        hidden = like.new_full(both, torch.finfo(dtype).min, dtype=dtype)
        if self.bias is None:
            return hidden.index_fill(-1, self.kept, 0)
        whole = hidden.expand(*self.bias.shape[:2], -1, -1)
        return whole.index_copy(-1, self.kept, self.bias)

    def to(self, dtype: torch.dtype) -> Mask:
        """Return the mask in another dtype; what is hidden stays finite."""
        return self._each(lambda x: _finite(x, dtype))

    def sample(self, index: int, groups: int) -> Mask:
        """Return the mask of one sequence, with its key heads in place of the batch.

        Args:
            index: Of the sequence.
            groups: Query heads per key head, which become the heads.
        """

        def one(x: Tensor) -> Tensor:
            x = x[index : index + 1] if x.shape[0] > 1 else x
            return x if x.shape[1] == 1 else x[0].unflatten(0, (-1, groups))

        return self._each(one)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Mask:
        tensors = {"general": self.general, "others": self.others, "bias": self.bias}
        return replace(self, **{name: x if x is None else change(x) for name, x in tensors.items()})


def general_mask(mask: Tensor, layout: TokenLayout, queries: Queries = ALL) -> Mask:
    """Take a mask as it is, without looking into it: over pictures too, for `masked` alone.

    Arguments are those of `read_mask`.
    """
    mask = _four_dimensional(mask)
    # Expanded last: a mask over the keys alone stays as small as it is.
    whole = _finite(mask, mask.dtype).expand(-1, -1, queries.tokens(layout), layout.tokens)
    return Mask(layout, queries, general=whole)


def read_mask(mask: Tensor, layout: TokenLayout, queries: Queries = ALL) -> Mask | None:
    """Find out what a mask concerns; None where it changes nothing.

    It waits for the device once. Read a mask that many calls have in common once, and hand each of
    them the result. While torch.compile traces, and where a gradient of the mask is wanted, nothing
    is looked into, and the mask is taken as a general one.

    Args:
        mask: Boolean (True is seen) or added to the scores, broadcastable to ``[B, H, M, L]`` in
            torch's way, from the right: one of three dimensions is ``[H, M, L]``. M counts the
            queries, L all tokens of the layout. At `HIDDEN` or below a key is hidden.
        layout: Where the tokens lie.
        queries: Which of them ask.
    """
    wanted = torch.is_grad_enabled() and mask.requires_grad
    if wanted or torch.compiler.is_compiling():
        return general_mask(mask, layout, queries)
    mask = _four_dimensional(mask)
    mask = _finite(mask, mask.dtype).expand(-1, -1, -1, layout.tokens)
    image, others = _image_rows(mask, layout, queries), _other_rows(mask, layout, queries)
    first = image[:, :, :1]
    shared = torch.cat([first[..., layout.text_slice], first[..., layout.extra_slice]], -1)
    by_key = shared.transpose(0, -1).flatten(1)
    found = torch.cat(
        [
            (image == first).all()[None],
            (first[..., layout.image_slice] == 0).all()[None],
            (others != 0).any()[None],
            (by_key > HIDDEN).any(1) if image.numel() else by_key.new_ones(len(by_key)).bool(),
            (by_key != 0).any(1),
        ]
    ).tolist()
    alike, free, rest = found[:3]
    kept, biased = found[3 : 3 + len(by_key)], found[3 + len(by_key) :]
    if not (alike and free):
        return general_mask(mask, layout, queries)
    places = [place for place, seen in enumerate(kept) if seen]
    index = None if all(kept) else torch.tensor(places, dtype=torch.int64, device=mask.device)
    bias = None
    if any(biased[place] for place in places):
        bias = shared if index is None else shared.index_select(-1, index)
    if not rest and bias is None and index is None:
        return None
    return Mask(layout, queries, others=others if rest else None, bias=bias, kept=index)


def _image_rows(mask: Tensor, layout: TokenLayout, queries: Queries) -> Tensor:
    if not queries.image(layout):
        return mask[:, :, :0]
    return mask if mask.shape[2] == 1 else mask[:, :, queries.image_slice(layout)]


def _other_rows(mask: Tensor, layout: TokenLayout, queries: Queries) -> Tensor:
    if not queries.others(layout):
        return mask[:, :, :0]
    if mask.shape[2] == 1:
        return mask
    text, extra = queries.text_slice(layout), queries.extra_slice(layout)
    return torch.cat((mask[:, :, text], mask[:, :, extra]), 2)


def _four_dimensional(mask: Tensor) -> Tensor:
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)


def _finite(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask as numbers to be added, what is hidden as the lowest one of both dtypes."""
    if mask.dtype == torch.bool:
        low = torch.finfo(torch.float32).min
        return torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, low)
    low = max(torch.finfo(mask.dtype).min, torch.finfo(dtype).min)
    return mask.clamp(min=low).to(dtype)
