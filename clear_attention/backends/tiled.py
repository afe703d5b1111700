"""Linear attention from plain torch: tiles of queries against overlapping views of their windows.

Column by column of tiles: keys and values of the strip and its halo are copied once, so that the
window of each tile is a view into the copy, shifted by one tile height. One fused call attends to
all windows of the strip, one to the keys that every query sees, and the two merge exactly by
log-sum-exp. Memory beyond the output is that of one strip.

The backward pass uses that attention over a union of keys has, for each part, the gradient of
plain softmax attention with the union's output and log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..layout import TokenLayout
from ..partial import Part, aligned_zeros, attend_part, merge_parts, part_gradients
from ..window import Window
from .call import Call
from .everyone import attend_everywhere, shared_keys


def why_not(q: Tensor, call: Call) -> str | None:
    if call.mask is not None:
        return "it takes no attention mask"
    return None


def why_not_auto(q: Tensor, call: Call) -> str | None:
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, call: Call) -> Part:
    shared_k, shared_v = shared_keys(k, call), shared_keys(v, call)
    out, lse = _Tiled.apply(q, k, v, shared_k, shared_v, call)
    return Part(out, lse)


@dataclass(frozen=True)
class Strip:
    """A column of tiles and the keys that their windows reach.

    Attributes:
        layout: the whole sequence.
        window: the disc.
        tile: rows of one tile, in tokens.
        left: first column of the queries.
        right: column behind the last one.
    """

    layout: TokenLayout
    window: Window
    tile: int
    left: int
    right: int

    @property
    def tiles(self) -> int:
        return -(-self.layout.height // self.tile)

    @property
    def key_columns(self) -> slice:
        reach = self.window.reach
        return slice(max(0, self.left - reach), min(self.layout.width, self.right + reach))

    @property
    def shape(self) -> tuple[int, int, int]:
        """What the mask depends on; inner strips have it in common."""
        keys = self.key_columns
        return self.right - self.left, self.left - keys.start, keys.stop - keys.start

    def queries(self, tokens: Tensor, fill: float = 0.0) -> Tensor:
        """Copy the strip in tile order, ``[tiles, B*H, tile*columns, ...]``; B*H may be 1 batch."""
        grid = tokens.unflatten(2, (self.layout.height, self.layout.width))
        strip = grid[:, :, :, self.left : self.right]
        padded = tokens.new_full(
            (*tokens.shape[:2], self.tiles * self.tile, *strip.shape[3:]), fill
        )
        padded[:, :, : self.layout.height] = strip
        columns = self.right - self.left
        tiled = padded.view(-1, self.tiles, self.tile * columns, *tokens.shape[3:])
        return tiled.transpose(0, 1)

    def write_queries(self, grid: Tensor, tiled: Tensor) -> None:
        """Write ``[tiles, B*H, tile*columns, ...]`` back into ``[B, H, height, width, ...]``."""
        columns = self.right - self.left
        rows = tiled.transpose(0, 1).reshape(
            *grid.shape[:2], self.tiles * self.tile, columns, *grid.shape[4:]
        )
        grid[:, :, :, self.left : self.right] = rows[:, :, : self.layout.height]

    def windows(self, tokens: Tensor) -> Tensor:
        """Copy the strip and its halo, and return each tile's window as a view into it.

        ``[tiles, B*H, (tile + 2*reach)*key_columns, D]``; rows outside the grid are zero.
        """
        keys, reach = self.key_columns, self.window.reach
        columns, depth = keys.stop - keys.start, tokens.shape[3]
        grid = tokens.unflatten(2, (self.layout.height, self.layout.width))
        rows = self.tiles * self.tile + 2 * reach
        halo = tokens.new_zeros(*tokens.shape[:2], rows, columns, depth)
        halo[:, :, reach : reach + self.layout.height] = grid[:, :, :, keys]
        return halo.as_strided(
            (self.tiles, tokens.shape[0] * tokens.shape[1], self._window_tokens, depth),
            (self.tile * columns * depth, rows * columns * depth, depth, 1),
        )

    def add_windows(self, grid: Tensor, windows: Tensor) -> None:
        """Add the windows' gradients back into ``[B, H, height, width, D]``."""
        keys, reach = self.key_columns, self.window.reach
        rows = self.tile + 2 * reach
        parts = windows.unflatten(2, (rows, keys.stop - keys.start)).unflatten(1, grid.shape[:2])
        for index, part in enumerate(parts):
            first = index * self.tile - reach
            top, bottom = max(0, first), min(self.layout.height, first + rows)
            grid[:, :, top:bottom, keys] += part[:, :, top - first : bottom - first]

    def bias(self, like: Tensor) -> Tensor:
        """Return the mask of every tile, ``[tiles, 1, tile*columns, window tokens]``."""
        reach, keys, device = self.window.reach, self.key_columns, like.device
        query_y = torch.arange(self.tile, device=device)
        key_y = torch.arange(-reach, self.tile + reach, device=device)
        query_x = torch.arange(self.left, self.right, device=device)
        key_x = torch.arange(keys.start, keys.stop, device=device)
        sees = self.window.sees(
            (query_y[:, None] - key_y)[:, None, :, None], (query_x[:, None] - key_x)[:, None]
        ).flatten(2)
        first_row = torch.arange(self.tiles, device=device) * self.tile
        row = first_row[:, None] + key_y
        inside = ((row >= 0) & (row < self.layout.height)).repeat_interleave(len(key_x), 1)
        hidden = ~(sees.flatten(0, 1)[None, None] & inside[:, None, None])
        return aligned_zeros(hidden.shape, like).masked_fill_(hidden, -torch.inf)

    @property
    def _window_tokens(self) -> int:
        keys = self.key_columns
        return (self.tile + 2 * self.window.reach) * (keys.stop - keys.start)


def strips(layout: TokenLayout, window: Window, device: torch.device) -> Iterator[Strip]:
    """Cut the grid into strips, left to right."""
    rows, columns = tile_size(window, device)
    for left in range(0, layout.width, columns):
        yield Strip(layout, window, rows, left, min(layout.width, left + columns))


def tile_size(window: Window, device: torch.device) -> tuple[int, int]:
    """Return the rows and columns of a tile: small ones compute less, large ones fill a GPU."""
    if device.type == "cpu":
        return (4, 8)
    return (8, 8) if window.radius <= 8 else (16, 16)


def _shared_part(
    queries: Tensor, batch: torch.Size, shared_k: Tensor, shared_v: Tensor, scale: float
) -> Part:
    """Attend from ``[tiles, B*H, M, D]`` to the keys that everyone sees."""
    tiles, _, rows, _ = queries.shape
    flat = queries.transpose(0, 1).reshape(*batch, tiles * rows, -1)
    part = attend_part(flat, shared_k, shared_v, scale=scale)
    return Part(
        part.out.reshape(-1, tiles, rows, queries.shape[-1]).transpose(0, 1),
        part.lse.reshape(-1, tiles, rows).transpose(0, 1),
    )


class _Tiled(torch.autograd.Function):
    """Forward and backward over strips."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        shared_k: Tensor,
        shared_v: Tensor,
        call: Call,
    ) -> tuple[Tensor, Tensor]:
        layout = call.layout
        grid = (2, (layout.height, layout.width))
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        text, extra = attend_everywhere(q, k, v, call)
        lse = torch.empty(q.shape[:3], dtype=text.lse.dtype, device=q.device)
        for rows, part in ((layout.text_slice, text), (layout.extra_slice, extra)):
            out[:, :, rows], lse[:, :, rows] = part
        image_q, image_k, image_v, image_out, image_lse = (
            x[:, :, layout.image_slice] for x in (q, k, v, out, lse)
        )
        biases: dict[tuple[int, int, int], Tensor] = {}
        for strip in strips(layout, call.window, q.device):
            if strip.shape not in biases:
                biases = {strip.shape: strip.bias(q)}
            queries = strip.queries(image_q)
            part = attend_part(
                queries,
                strip.windows(image_k),
                strip.windows(image_v),
                scale=call.scale,
                bias=biases[strip.shape],
            )
            if shared_k.shape[2]:
                shared = _shared_part(queries, q.shape[:2], shared_k, shared_v, call.scale)
                part = merge_parts(shared, part)
            strip.write_queries(image_out.unflatten(*grid), part.out)
            strip.write_queries(image_lse.unflatten(*grid), part.lse)
        ctx.save_for_backward(q, k, v, shared_k, shared_v, out, lse)
        ctx.call = call
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx: FunctionCtx, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, shared_k, shared_v, out, lse = ctx.saved_tensors
        call: Call = ctx.call
        layout, grid = call.layout, (2, (call.layout.height, call.layout.width))
        dtype = lse.dtype
        delta = (grad_out.to(dtype) * out).sum(-1)
        grads = [torch.zeros(x.shape, dtype=dtype, device=q.device) for x in (q, k, v)]
        shared_grads = [torch.zeros(x.shape, dtype=dtype, device=q.device) for x in (shared_k, shared_v)]
        for rows in (layout.text_slice, layout.extra_slice):
            dq, dk, dv = part_gradients(
                q[:, :, rows], k, v, grad_out[:, :, rows], lse[:, :, rows], delta[:, :, rows],
                scale=call.scale,
            )
            grads[0][:, :, rows] = dq
            grads[1] += dk
            grads[2] += dv
        image = layout.image_slice
        dq, dk, dv = (x[:, :, image].unflatten(*grid) for x in grads)
        shared_dq, shared_dk, shared_dv = part_gradients(
            q[:, :, image], shared_k, shared_v, grad_out[:, :, image], lse[:, :, image],
            delta[:, :, image], scale=call.scale,
        )
        shared_grads[0] += shared_dk
        shared_grads[1] += shared_dv
        for strip in strips(layout, call.window, q.device):
            strip_dq, strip_dk, strip_dv = part_gradients(
                strip.queries(q[:, :, image]),
                strip.windows(k[:, :, image]),
                strip.windows(v[:, :, image]),
                strip.queries(grad_out[:, :, image]),
                # Rows outside the grid: an infinite log-sum-exp makes their probabilities zero.
                strip.queries(lse[:, :, image], fill=torch.inf),
                strip.queries(delta[:, :, image]),
                scale=call.scale,
                bias=strip.bias(q),
            )
            strip.write_queries(dq, strip_dq)
            strip.add_windows(dk, strip_dk)
            strip.add_windows(dv, strip_dv)
        grads[0][:, :, image] += shared_dq
        typed = [g.to(q.dtype) for g in (*grads, *shared_grads)]
        return (*typed, None)
