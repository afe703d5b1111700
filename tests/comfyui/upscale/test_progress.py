"""One progress bar over all stages of a cascade, and previews that stay small."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ..upscale_fixtures import noisy


def test_one_progress_bar_moves_over_all_stages_and_tiles(upscale, steps):
    upscale(noisy(32, 32), 128, vae_tile=128, denoise="0.5, 0.5")
    # Two steps and a move each for encoding and decoding; the second stage counts fourfold.
    assert [value for value, _ in steps] == [1, 2, 3, 4, 8, 12, 16, 20]
    assert {total for _, total in steps} == {20}


def test_kept_stages_count_as_done(upscale, steps):
    image = noisy(32, 32)
    upscale(image, 64)
    steps.clear()
    upscale(image, 128)
    assert [value for value, _ in steps] == [4, 8, 12, 16, 20]


@pytest.mark.parametrize("channels", [16])
def test_previews_are_of_a_small_latent(modules, demo, monkeypatch, channels):
    import latent_preview

    shapes = []

    class Previewer:
        def decode_latent_to_preview_image(self, form, latent):
            shapes.append((form, tuple(latent.shape)))

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Previewer())
    stage = SimpleNamespace(width=8, height=8, kept=2)
    progress = modules.progress.CascadeProgress(demo.model, [stage])
    callback = progress.sampling(0, 2)
    for size in ((1024, 768), (64, 96)):
        callback(0, torch.zeros(2, channels, *size), torch.zeros(1), 2)
    assert shapes == [("JPEG", (1, channels, 128, 96)), ("JPEG", (2, channels, 64, 96))]
