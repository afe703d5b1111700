"""The merge of all ranks' parts: attention over the union of their keys, rounded once."""

from __future__ import annotations

import pytest
import torch

from clear_attention.parallel.merge import merge_all
from clear_attention.partial import Part, Plain

COUNTS = (5, 1, 12, 3, 7)  # keys of each rank


def tensors(dtype):
    generator = torch.Generator().manual_seed(0)
    sizes = (9, sum(COUNTS), sum(COUNTS))
    return [torch.randn(2, 3, size, 16, generator=generator).to(dtype) for size in sizes]


def parts_of(q, k, v):
    pairs = zip(k.split(COUNTS, 2), v.split(COUNTS, 2), strict=True)
    return [Plain.attend(q, *pair, None, 0.5) for pair in pairs]


def test_parts_of_the_keys_make_up_the_whole():
    q, k, v = tensors(torch.float64)
    whole, merged = Plain.attend(q, k, v, None, 0.5), merge_all(parts_of(q, k, v))
    torch.testing.assert_close(merged.out, whole.out, rtol=0, atol=1e-14)
    torch.testing.assert_close(merged.lse, whole.lse, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_many_parts_are_rounded_once(dtype):
    parts = parts_of(*tensors(dtype))
    merged = merge_all(parts)
    wide = merge_all([Part(part.out.float(), part.lse) for part in parts])
    assert torch.equal(merged.out, wide.out.to(dtype))
    assert torch.equal(merged.lse, wide.lse)


def test_one_part_is_left_alone():
    part = parts_of(*tensors(torch.bfloat16))[0]
    assert torch.equal(merge_all([part]).out, part.out)
