"""Whatever reaches the attention: odd sizes, batches, no text, references of any number."""

from __future__ import annotations

import random

import pytest
import torch

from ..flux_runs import conditioning, inputs, sampled, window_by_hand, with_override

BACKENDS = ("auto", "tiled", "masked", "flex", "reference")
ROUNDING = {"atol": 2e-5, "rtol": 2e-5}


def draw(seed):
    """Draw a call, its sizes in latent pixels."""
    pick = random.Random(seed)
    return {
        "height": pick.randint(1, 40),
        "width": pick.randint(1, 40),
        "text": pick.choice([1, 2, 40, 300]),
        "batch": pick.randint(1, 3),
        "references": [
            (pick.randint(1, 20), pick.randint(1, 20)) for _ in range(pick.choice([0, 0, 1, 3]))
        ],
        "radius": pick.choice([1, 2, 4, 9, 100]),
        "backend": pick.choice(BACKENDS),
    }


def tokens_of(height, width):
    return -(-height // 2) * -(-width // 2)


@pytest.mark.parametrize("seed", range(24))
def test_any_call_equals_a_mask_written_by_hand(seed, flux_model, nodes, run):
    case = draw(seed)
    given = inputs(case["height"], case["width"], case["text"], case["batch"], seed)
    generator = torch.Generator().manual_seed(seed)
    given["ref_latents"] = [
        torch.randn(case["batch"], 16, *size, generator=generator) for size in case["references"]
    ]
    references = sum(tokens_of(*size) for size in case["references"])
    grid = (-(-case["height"] // 2), -(-case["width"] // 2))
    by_hand = with_override(flux_model("b"), window_by_hand(*grid, references, case["radius"]))
    local = nodes.CLEARAttention(flux_model("b"), case["radius"], backend=case["backend"])
    torch.testing.assert_close(run(local, **given), run(by_hand, **given), **ROUNDING)


@pytest.mark.parametrize("seed", range(100, 112))
def test_any_pooled_call_equals_the_reference(seed, flux_model, nodes, clear_folder, run):
    case = draw(seed)
    given = inputs(case["height"], case["width"], case["text"], case["batch"], seed)
    file = ("clear_b_down4.safetensors", 1.0, case["radius"])
    local, reference = (
        nodes.CLEARLoader(flux_model("b"), *file, backend=backend)
        for backend in (case["backend"], "reference")
    )
    expected = run(reference, **given)
    error = run(local, **given) - expected
    assert error.norm() <= 64 * 2**-23 * expected.norm()


STRANGE = {"a video": {"size": (1, 26, 20)}, "no text": {"positive": conditioning(0, 2)}}


@pytest.mark.parametrize("name", STRANGE)
def test_what_the_host_refuses_is_refused_in_its_own_words(name, flux_model, nodes):
    """A fifth dimension, or a prompt of no tokens, is the host's to take or to refuse."""

    def outcome(model):
        try:
            return sampled(model, **{"size": (26, 20), **STRANGE[name]}, steps=1)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    plain = outcome(flux_model("b"))
    local = outcome(nodes.CLEARAttention(flux_model("b"), 64))
    if isinstance(plain, str):
        assert local == plain
    else:
        torch.testing.assert_close(local, plain, atol=1e-4, rtol=1e-4)
