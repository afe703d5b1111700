"""CLEAR Upscale's presets: what they set, and that custom leaves everything as it is."""

from __future__ import annotations

import itertools

import pytest
import torch

from ..upscale_fixtures import noisy


@pytest.fixture
def presets(product):
    return product("comfyui.upscale.presets")


def test_custom_takes_the_nodes_own_inputs(presets):
    own = presets.Preset("0.42", 0.1, 3.0)
    assert presets.preset_named("custom", own) == (own, [])


def test_a_preset_sets_what_the_inputs_would(presets, upscale):
    image = noisy(64, 64)
    preset = presets.PRESETS["keep my picture"]
    chosen, _ = upscale(image, 128, denoise="1", preset="keep my picture")
    set_by_hand, _ = upscale(
        image,
        128,
        denoise=preset.denoise,
        guidance_strength=preset.guidance_strength,
        guidance_decay=preset.guidance_decay,
    )
    assert torch.equal(chosen, set_by_hand)
    assert not torch.equal(chosen, upscale(image, 128, denoise="1")[0])


def test_presets_change_more_and_hold_less_in_their_order(presets):
    listed = list(presets.PRESETS.values())
    for less, more in itertools.pairwise(listed):
        assert float(less.denoise.split(",")[0]) < float(more.denoise.split(",")[0])
        assert less.guidance_strength > more.guidance_strength


def test_the_report_states_what_a_preset_set(presets):
    own = presets.Preset("0.42", 0.1, 3.0)
    _, (line,) = presets.preset_named("add detail", own)
    assert line == "preset add detail: denoise 0.5, 0.4, guidance_strength 0.7, guidance_decay 1"


def test_an_unknown_preset_is_answered_with_those_there_are(presets):
    with pytest.raises(ValueError, match="custom, keep my picture, add detail, repaint"):
        presets.preset_named("better", presets.Preset("1", 0, 0))
