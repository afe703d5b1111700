"""The memory model: what is held, by hand, in slices, in batches, and by any backend."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from plan_cases import CPU, FLUX_DEV, SMALL_FLUX, SMALL_FLUX2, SMALL_SD3, job

from clear_attention.backends import BACKENDS, Call, Footprint, tiled
from clear_attention.families.network import flux
from clear_attention.plan.memory import memory

SIX_TOKENS = job(3, 2, 2, None)
ALL = pytest.mark.parametrize(
    "network", [SMALL_FLUX, SMALL_FLUX2, SMALL_SD3], ids=["flux", "flux2", "sd3"]
)


@pytest.mark.parametrize(
    ("dtype", "live"),
    [
        # x, q k v, normalised and rotated q and k, linear1's share of the MLP; the output, twice
        (torch.float32, 4 * (8 * 4 + 8 + 2 * 4)),
        # without an output, but with two tensors in float32 while the second is rotated
        (torch.bfloat16, 2 * (8 * 4 + 8) + 4 * 2 * 4),
    ],
    ids=str,
)
def test_bytes_add_up_by_hand(dtype, live):
    """One single block of width 4, MLP 8, two heads, on 2 text and 6 image tokens, 5 values."""
    network = flux(
        hidden=4, heads=2, mlp=8, double=0, single=1, latent_values=5, input_values=5, context=0
    )
    positions, latents = 8 * 4 * 4, 10 * 6 * 5 * 4
    expected = 8 * live + positions + latents
    assert memory(network, SIX_TOKENS, dtype, CPU) == expected
    three = dataclasses.replace(SIX_TOKENS, batch=3)
    assert memory(network, three, dtype, CPU) == 3 * expected


def test_slices_add_up_by_hand():
    """In slices of 4: x, q k v and the output; then x, the output and what a slice needs."""
    network = flux(
        hidden=4, heads=2, mlp=60, double=0, single=1, latent_values=5, input_values=5, context=0
    )
    beside = 8 * 4 * 4 + 10 * 6 * 5 * 4
    attends, mlp = 8 * 4 * 5 * 4, 8 * 4 * 2 * 4 + 4 * 4 * (4 * 4 + 2 * 60)
    assert mlp > attends
    assert memory(network, SIX_TOKENS, torch.float32, CPU, 4) == beside + mlp
    # Of one token each, the attention is the peak.
    narrow = dataclasses.replace(network, mlp=8)
    assert memory(narrow, SIX_TOKENS, torch.float32, CPU, 1) == beside + attends


@ALL
def test_a_picture_that_is_one_slice_is_computed_whole(network):
    call = job(20, 20)
    whole = memory(network, call, torch.float32, CPU)
    assert memory(network, call, torch.float32, CPU, 0) == whole  # fewer than 8192 tokens
    assert memory(network, call, torch.float32, CPU, 404) == whole
    assert memory(network, call, torch.float32, CPU, 64) < whole


@ALL
def test_smaller_slices_need_no_more(network):
    sizes = (100, 800, 3200, 6300)
    needed = [memory(network, job(80, 80), torch.float32, CPU, size) for size in sizes]
    assert needed == sorted(needed) and needed[0] < needed[-1]


@pytest.mark.parametrize(("backend", "larger"), [("tiled", "full"), ("reference", "local")])
def test_a_run_that_is_full_in_a_part_has_the_larger_peak(backend, larger):
    """Of a backend that needs less than full attention's output and its copy, or far more."""
    local = job(400, 400, radius=3, backend=backend)
    calls = {
        "local": local,
        "full": local.full(),
        "mixed": dataclasses.replace(local, local_share=0.4),
        "dense": dataclasses.replace(local, dense={("single", 37)}),
    }
    peaks = {name: memory(FLUX_DEV, each, torch.float32, CPU) for name, each in calls.items()}
    assert peaks["local"] != peaks["full"]
    assert peaks["mixed"] == peaks["dense"] == peaks[larger] == max(peaks.values())


def quadratic(bytes_per_pair):
    """Return a backend as CONTRIBUTING's recipe makes it, which holds all scores."""

    def footprint(q, call: Call) -> Footprint:
        pairs = call.layout.tokens**2
        return Footprint(pairs, q.shape[0] * q.shape[1] * pairs * bytes_per_pair, linear=False)

    return SimpleNamespace(
        why_not=lambda q, call: None,
        why_not_auto=lambda q, call: None,
        attend=tiled.attend,
        footprint=footprint,
        ABOUT=tiled.ABOUT,
    )


def test_a_new_quadratic_backend_is_counted_without_another_line(monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", quadratic(4))
    peaks = [
        memory(
            FLUX_DEV, job(edge, edge, 512, 16, backend="fake"), torch.bfloat16, CPU, slice_tokens
        )
        for edge in (128, 256)
        for slice_tokens in (None, 0)
    ]
    for edge, peak in zip((128, 128, 256, 256), peaks, strict=True):
        scores = 24 * (edge**2 + 512) ** 2 * 4
        assert scores < peak < 1.3 * scores
    # Auto takes it where all before it in the list decline.
    for name in ("masked", "triton", "tiled", "flex"):
        monkeypatch.setattr(BACKENDS[name], "why_not_auto", lambda q, call: "not today")
    auto = memory(FLUX_DEV, job(128, 128, 512, 16), torch.bfloat16, CPU)
    assert auto == peaks[0]


def test_a_backend_that_declines_a_call_is_not_the_one_that_is_counted(monkeypatch):
    declines = quadratic(4)
    declines.why_not = lambda q, call: "never"
    monkeypatch.setitem(BACKENDS, "fake", declines)
    asked, auto = job(128, 128, 512, 16, backend="fake"), job(128, 128, 512, 16)
    assert memory(FLUX_DEV, asked, torch.float32, CPU) == memory(FLUX_DEV, auto, torch.float32, CPU)
