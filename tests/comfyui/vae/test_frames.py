"""Pictures through the host's VAE for videos, which takes several of them for frames of one."""

from __future__ import annotations

import pytest
import torch

from ..vae_fixtures import picture


@pytest.fixture
def pixels(product):
    return product("comfyui.vae.pixels")


def pictures():
    one = picture(32, 48)
    return torch.cat((one, one.flip(2), one.flip(1)))


def test_each_picture_of_a_batch_is_one_of_its_own(video_vae, pixels):
    with torch.inference_mode():
        latent = pixels.encode(video_vae, pictures(), 0)
        alone = [video_vae.encode(one) for one in pictures().split(1)]
        assert latent.shape == (3, 16, 1, 4, 6)
        assert all(one.equal(own[0]) for one, own in zip(latent, alone, strict=True))
        assert video_vae.encode(pictures()).shape[:3] == (1, 16, 1)  # the host's own: three frames
        decoded = pixels.decode(video_vae, latent, 0)
        assert decoded.shape == (3, 32, 48, 3)
        assert all(
            one.equal(video_vae.decode(own)[0, 0]) for one, own in zip(decoded, alone, strict=True)
        )


def test_in_tiles_they_have_a_frame_too(video_vae, pixels):
    image = torch.cat((picture(136, 144), picture(136, 144).flip(1)))
    with torch.inference_mode():
        latent = pixels.encode(video_vae, image, 128)
        assert latent.shape == (2, 16, 1, 17, 18)
        decoded = pixels.decode(video_vae, latent, 128)
    assert decoded.shape == image.shape
    assert decoded.isfinite().all()
    assert not decoded[0].equal(decoded[1])


@pytest.mark.parametrize(("direction", "axis"), [("vertical", 3), ("horizontal", 4)])
def test_a_seamless_latent_with_a_frame_is_decoded_around_its_edges(
    direction, axis, video_vae, pixels, node_classes
):
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(1, 16, 1, 8, 10, generator=generator)
    rolled = samples.roll(5, axis)
    node = node_classes["CLEARSeamlessDecode"]
    with torch.inference_mode():
        (image,) = node.execute({"samples": samples}, video_vae, direction).args
        (moved,) = node.execute({"samples": rolled}, video_vae, direction).args
        plain = [video_vae.decode(one)[0] for one in (samples, rolled)]
    assert image.shape == (1, 64, 80, 3)
    error = (moved - image.roll(40, axis - 2)).abs().mean()
    assert error < 0.5 * (plain[1] - plain[0].roll(40, axis - 2)).abs().mean()


def test_videos_are_refused(video_vae, node_classes):
    with pytest.raises(ValueError, match=r"samples must be pictures.*got \[1, 16, 2, 8, 8\]"):
        node_classes["CLEARSeamlessDecode"].execute(
            {"samples": torch.zeros(1, 16, 2, 8, 8)}, video_vae
        )
