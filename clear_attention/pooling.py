"""The pooled branch: a coarse copy of the keys and values that every image token sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import accumulation_dtype


@dataclass(frozen=True, eq=False)
class Pooling:
    """Weighted sums over cells of factor x factor tokens (CLEAR, section 3.3).

    Args:
        factor: Edge of a cell, in tokens.
        weight: ``w[dy, dx]``, ``[factor, factor]`` or the published ``[1, 1, 1, f, 1, f, 1]``;
            shared by keys, values and heads, not normalised. None is the mean.

    Raises:
        ValueError: The factor is no positive integer, or the weight has another shape.
    """

    factor: int
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        if type(self.factor) is not int or self.factor < 1:
            raise ValueError(f"Pooling.factor must be a positive integer, got {self.factor!r}.")
        if self.weight is None:
            return
        if self.weight.squeeze().shape != torch.Size([self.factor] * 2 if self.factor > 1 else []):
            raise ValueError(
                f"Pooling.weight must have the shape [{self.factor}, {self.factor}], "
                f"got {list(self.weight.shape)}."
            )
        object.__setattr__(self, "weight", self.weight.reshape(self.factor, self.factor))

    def cells(self, height: int, width: int) -> int:
        """Count the pooled tokens of a grid; ragged edges make cells of their own."""
        return -(-height // self.factor) * -(-width // self.factor)

    def pool(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Pool a grid of tokens, accumulating in float32 at least.

        Cells that stick out of the grid are pooled over the tokens that they have, with the
        weights renormalised to the sum of a full cell.

        Args:
            tokens: ``[B, H, height*width, D]``, after RoPE.
            height: Rows of the grid, in tokens.
            width: Columns of the grid, in tokens.

        Returns:
            ``[B, H, cells, D]`` in the dtype of `tokens`.
        """
        factor = self.factor
        weight = self._weight(tokens)
        below, right = -height % factor, -width % factor
        grid = tokens.unflatten(2, (height, width))
        if below or right:  # padding copies, also by nothing
            grid = F.pad(grid, (0, 0, 0, right, 0, below))
        # [B, H, cells_y, dy, cells_x, dx, D]
        cells = grid.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
        pooled = torch.zeros_like(cells[:, :, :, 0, :, 0], dtype=weight.dtype)
        for dy in range(factor):
            for dx in range(factor):
                pooled = pooled + weight[dy, dx] * cells[:, :, :, dy, :, dx].to(weight.dtype)
        if below or right:
            pooled = pooled * self._renormalisation(weight, height, width)
        return pooled.flatten(2, 3).to(tokens.dtype)

    def pool_bias(self, bias: Tensor, height: int, width: int) -> Tensor:
        """Return the bias of each cell, ``[..., cells]``: that of its most hidden token.

        Args:
            bias: ``[..., height*width]``, added to the scores of the grid's keys.
            height: Rows of the grid, in tokens.
            width: Columns of the grid, in tokens.
        """
        factor = self.factor
        ragged = (0, -width % factor, 0, -height % factor)
        grid = F.pad(bias.unflatten(-1, (height, width)), ragged, value=torch.inf)
        cells = grid.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
        return cells.amin((-3, -1)).flatten(-2)

    def _weight(self, like: Tensor) -> Tensor:
        dtype = accumulation_dtype(like.dtype)
        if self.weight is None:
            full = (self.factor, self.factor)
            return torch.full(full, self.factor**-2, dtype=dtype, device=like.device)
        return self.weight.to(like.device, dtype)

    def _renormalisation(self, weight: Tensor, height: int, width: int) -> Tensor:
        """Return the factor by which each cell's sum grows, ``[cells_y, cells_x, 1]``."""
        inside = torch.ones(height, width, dtype=weight.dtype, device=weight.device)
        inside = F.pad(inside, (0, -width % self.factor, 0, -height % self.factor))
        # [cells_y, dy, cells_x, dx]
        cells = inside.unflatten(1, (-1, self.factor)).unflatten(0, (-1, self.factor))
        present = (cells * weight[:, None]).sum((1, 3))
        # Learned weights may have either sign: a remainder that cancels out has no sensible norm.
        usable = present.abs() > 1e-3 * weight.abs().sum()
        return torch.where(usable, weight.sum() / torch.where(usable, present, 1), 1)[..., None]
