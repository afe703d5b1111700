"""Ranks whose image tokens attend by the Triton backend."""

from __future__ import annotations

import threading

import pytest
import torch
from attention_cases import Case
from rank_cases import Shared

pytest.importorskip("triton", reason="Triton is not made for this machine")
if torch.cuda.is_available():
    pytest.skip(
        "the kernels run on the GPU, the ranks of this file do not", allow_module_level=True
    )

from interpreted import SHAPES, interpreted

from clear_attention import TokenLayout
from clear_attention.parallel import attention as parallel_attention
from clear_attention.parallel.partition import Partition


@pytest.fixture
def one_by_one(monkeypatch):
    """Let one rank at a time launch kernels: Triton's interpreter is not made for threads."""
    plain, lock = parallel_attention.attention, threading.Lock()

    def locked(*args, **kwargs):
        with lock:
            return plain(*args, **kwargs)

    monkeypatch.setattr(parallel_attention, "attention", locked)


@pytest.mark.parametrize(
    ("factor", "wraps"), [(0, (True, False)), (3, (False, False))], ids=["wrapped", "pooled"]
)
def test_the_ranks_compute_what_one_computes(factor, wraps, one_by_one):
    case = Case(TokenLayout(3, 6, 13, 2), radius=3, factor=factor, wraps=wraps, heads=1)
    shared = Shared(case, Partition(6, 13, (0, 6, 13), columns=True), groups=2)
    with interpreted(SHAPES["small"]):
        outs, _ = shared.compute("triton")
    exact = shared.whole(dtype=torch.float64)
    for rank, out in enumerate(outs):
        expected = shared.of(exact, rank)
        assert float((out.double() - expected).norm() / expected.norm()) < 1e-6
