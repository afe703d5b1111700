"""What autograd has saved stays as it was, whatever is written over it afterwards."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from clear_attention.comfyui.distill.saved_tensors import saved_tensors_kept


def leaf(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw).requires_grad_()


def test_what_is_overwritten_has_the_gradient_that_it_had():
    first, second = leaf(3, 4), leaf(4)
    with saved_tensors_kept():
        kept = first.clone()
        squared = kept**2
        kept += second  # a broadcast, as a block adds to its input
        kept[:, 1:] *= 2  # a view of the same memory
        torch.add(kept.detach(), 1, out=kept.detach())
        squared.sum().backward()
    assert first.grad is not None
    torch.testing.assert_close(first.grad, 2 * first.detach(), rtol=0, atol=0)


def test_memory_that_is_used_again_is_not_taken_for_what_lay_there():
    inputs = [leaf(64, 64, seed=seed) for seed in range(60)]
    plain = [given.detach() for given in inputs]
    places: list[tuple[int, int]] = []
    with saved_tensors_kept():
        sums = []
        for given, values in zip(inputs, plain, strict=True):
            kept = values + 0  # the allocator gives it the memory of one before
            places.append((id(kept), kept.data_ptr()))
            sums.append((given * kept).sum())
            kept += 1
            del kept
        torch.stack(sums).sum().backward()
    # Torch's own guard returns an earlier tensor for each of those that come to lie in its place.
    assert len(set(places)) < len(places), "no place was used again: the test shows nothing"
    assert all(given.grad.equal(values) for given, values in zip(inputs, plain, strict=True))


def test_what_is_not_overwritten_is_not_copied():
    given = leaf(5)
    kept = given * 1
    with saved_tensors_kept():
        squared = kept**2
        saved = squared.grad_fn._saved_self  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        assert saved.data_ptr() == kept.data_ptr()
        squared.sum().backward()


def test_tensors_of_a_list_and_of_a_keyword_are_seen():
    tensors = [leaf(4) for _ in range(3)]
    with saved_tensors_kept():
        kept = [tensor.clone() for tensor in tensors]
        squares = [tensor**2 for tensor in kept]
        with torch.no_grad():
            torch._foreach_zero_(kept[:2])
            torch.zeros(4, out=kept[2])
        torch.stack(squares).sum().backward()
    for tensor in itertools.chain(tensors):
        assert tensor.grad is not None
        assert tensor.grad.equal(2 * tensor.detach())
