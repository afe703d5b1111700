"""What the Triton backend does with parts of the queries, groups of heads and masks over text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_cases import Case

pytest.importorskip("triton", reason="Triton is not made for this machine")
if torch.cuda.is_available():
    pytest.skip("the kernels run on the GPU: see test_cuda.py", allow_module_level=True)

from interpreted import interpreted
from part_cases import Asked

from clear_attention import Queries, TokenLayout

LAYOUT = TokenLayout(4, 7, 9, extra=2)
CASE = Case(LAYOUT, radius=3, factor=4, heads=1)


def padding(square: bool) -> torch.Tensor:
    """Return a mask that hides a text and an extra token from all."""
    mask = torch.zeros(1, 1, LAYOUT.tokens if square else 1, LAYOUT.tokens)
    mask[..., 1] = mask[..., -1] = -torch.inf
    if square:
        mask[:, :, 0, 5:20] = -1  # a text query's own
    return mask


CALLS = {
    "image alone": Asked(CASE, Queries(text=False, extra=False), 1, None),
    "without extra, wrapped": Asked(
        replace(CASE, wraps=(True, True)), Queries(extra=False), 1, None
    ),
    "grouped": Asked(replace(CASE, batch=2, factor=0), Queries(), 2, None),
    "padded": Asked(CASE, Queries(), 1, padding(square=False)),
    "grouped tail, padded": Asked(CASE, Queries(text=False), 2, padding(square=True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_parts_match_the_whole_and_so_do_their_gradients(name):
    asked = CALLS[name]
    tensors = [x.requires_grad_() for x in asked.tensors()]
    with interpreted():
        found = asked.compute(*tensors, "triton")
        grads = torch.autograd.grad(found[0].square().sum(), tensors)
    expected = asked.specify(*(x.double() for x in tensors))
    exact = torch.autograd.grad(expected[0].square().sum(), tensors)
    for one, other in zip((*found, *grads), (*expected, *exact), strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["image alone", "grouped tail, padded"])
def test_parts_are_rounded_like_the_whole(name):
    asked = CALLS[name]
    tensors = asked.tensors()
    with interpreted(), torch.no_grad():
        found, lse = asked.compute(*tensors, "triton_int8")
    expected, exact_lse = asked.specify(*(x.double() for x in tensors))
    assert (found - expected).norm() <= 0.03 * expected.norm()
    assert (lse - exact_lse).abs().max() <= 0.05
