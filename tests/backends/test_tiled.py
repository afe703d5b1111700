"""Work and memory of the tiled backend."""

from __future__ import annotations

import pytest
import torch
from attention_cases import Case
from torch.utils._python_dispatch import TorchDispatchMode

from clear_attention import TokenLayout, attention
from clear_attention.pairs import visible_pairs

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class Work(TorchDispatchMode):
    """Counts what passes through it.

    Attributes:
        pairs: of query and key, over all fused attention calls.
        largest: storage of the largest tensor made, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pairs = 0
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is FLASH:
            batch, heads, queries, _ = args[0].shape
            self.pairs += batch * heads * queries * args[1].shape[2]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "meta":
            self.largest = max(self.largest, result.untyped_storage().nbytes())
        return result


def work(
    height: int, width: int, radius: int = 8, head_dim: int = 32, wraps: bool = False
) -> tuple[Work, int]:
    """Count the work of one call; return it with the size of its queries in bytes."""
    layout = TokenLayout(16, height, width)
    case = Case(layout, radius, heads=1, head_dim=head_dim, wraps=(wraps, wraps))
    q, k, v = case.tensors()
    with Work() as counted, torch.no_grad():
        attention(q, k, v, *case.geometry, backend="tiled")
    return counted, q.untyped_storage().nbytes()


@pytest.mark.parametrize("wraps", [False, True], ids=["edges", "wrapped"])
def test_no_tensor_is_larger_than_the_queries(wraps):
    counted, size = work(128, 128, wraps=wraps)
    assert counted.largest <= size


@pytest.mark.parametrize("radius", [4, 8])
def test_work_grows_linearly_with_the_pixels(radius):
    small, _ = work(64, 64, radius)
    large, _ = work(128, 128, radius)
    assert large.pairs <= 4.4 * small.pairs


@pytest.mark.parametrize("wraps", [False, True], ids=["edges", "wrapped"])
def test_few_pairs_are_computed_in_vain(wraps):
    case = Case(TokenLayout(16, 96, 96), radius=8, wraps=(wraps, wraps))
    counted, _ = work(96, 96, wraps=wraps)
    assert counted.pairs <= 2.5 * visible_pairs(*case.geometry)


def test_second_derivatives_are_refused():
    case = Case(TokenLayout(1, 5, 6), radius=3)
    q, k, v = (x.requires_grad_() for x in case.tensors())
    out = attention(q, k, v, *case.geometry, backend="tiled")
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()
