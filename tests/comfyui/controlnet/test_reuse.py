"""Residuals that are kept between steps: for whom, how long, and when they are not."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def pace(host):
    from clear_attention.comfyui.controlnet.reuse import Pace

    return Pace


def asked(pace, *calls):
    """Ask and keep what is computed; return for each call whether it was."""
    computed = []
    for key, level in calls:
        found = pace.recall(key, level)
        computed.append(found is None)
        if found is None:
            pace.keep(key, {"input": [torch.tensor(level)]})
    return computed


def test_one_of_every_three_steps_is_computed(pace):
    steps = [("a", level) for level in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)]
    assert asked(pace(3), *steps) == [True, False, False, True, False, False, True]
    assert asked(pace(1), *steps) == [True] * 7


def test_each_conditioning_has_its_own(pace):
    kept = pace(2)
    asked(kept, ("a", 0.9), ("b", 0.9))
    kept.keep("b", {"input": ["of b"]})
    assert kept.recall("b", 0.8) == {"input": ["of b"]}
    assert kept.recall("a", 0.8)["input"][0] == pytest.approx(0.9)


def test_who_was_not_asked_before_is_computed(pace):
    assert asked(pace(2), ("a", 0.9), ("b", 0.8), ("a", 0.8)) == [True, True, False]


def test_what_is_kept_is_let_go_when_its_steps_are_over(pace):
    kept = pace(2)
    asked(kept, ("a", 0.9), ("b", 0.9), ("a", 0.8), ("a", 0.7))
    assert list(kept._kept) == ["a"]


def test_tiles_are_told_on_the_first_step_and_computed_ever_after(pace):
    kept = pace(2)
    assert asked(kept, *[("a", level) for level in (0.9, 0.9, 0.8, 0.8, 0.7)]) == [True] * 5
    assert "more than once" in kept.why_not
    assert kept.reused == 0
    assert not kept._kept


def test_a_picture_that_moves_between_steps_is_computed_ever_after(pace):
    kept, picture = pace(3), torch.arange(16.0).reshape(1, 1, 4, 4)
    assert kept.recall("a", 0.9) is None
    kept.keep("a", {"input": []}, picture)
    assert kept.recall("a", 0.8, picture.clone()) is not None
    # The host scales the original anew for each call's size: another size is another call's.
    assert kept.recall("a", 0.7, picture[..., :2]) is not None
    assert kept.recall("a", 0.6, picture) is None
    kept.keep("a", {"input": []}, picture)
    assert kept.recall("a", 0.5, picture.roll(1, -1)) is None
    assert "SpotDiffusion" in kept.why_not
    assert not kept._kept


def test_what_is_kept_does_not_outlive_an_interrupted_run(pace):
    kept, sigmas = pace(2), torch.linspace(1, 0, 4)
    kept.end_with(sigmas)
    asked(kept, ("a", 0.9))
    assert kept._kept
    del sigmas
    assert not kept._kept


def test_a_host_that_does_not_tell_for_whom_it_asks_gets_everything_computed(pace, host):
    from clear_attention.comfyui.controlnet.reuse import key_of

    latent = torch.zeros(2, 16, 4, 4)
    assert key_of(latent, 1.0, {}) is None
    kept = pace(2)
    assert asked(kept, (None, 0.9), (None, 0.8)) == [True, True]
    assert "does not tell" in kept.why_not


def test_keys_differ_by_conditioning_role_size_and_strength(host):
    from clear_attention.comfyui.controlnet.reuse import key_of

    latent = torch.zeros(2, 16, 4, 4)
    options = {"uuids": ["one", "two"], "cond_or_uncond": [0, 1]}
    keys = {
        key_of(latent, 1.0, options),
        key_of(latent, 0.5, options),
        key_of(latent[:1], 1.0, options),
        key_of(latent, 1.0, {**options, "cond_or_uncond": [1, 0]}),
        key_of(latent, 1.0, {**options, "uuids": ["two", "one"]}),
    }
    assert len(keys) == 5
    assert key_of(latent + 1, 1.0, {**options, "sigmas": 3}) == key_of(latent, 1.0, options)
