"""CLEAR Seamless Decode with the demo's VAE."""

from __future__ import annotations

import pytest
import torch

DIRECTIONS = {"both": (True, True), "horizontal": (False, True), "vertical": (True, False)}


@pytest.fixture(scope="module")
def vae(host):
    """The demo's VAE as the host's own class makes it."""
    import comfy.sd

    from demo.codec.vae_file import vae_weights

    return comfy.sd.VAE(sd=vae_weights())


@pytest.fixture
def decode(node_classes, vae):
    """The node as a function of a latent."""

    def run(samples, direction="both", tile_size=0):
        with torch.inference_mode():
            node = node_classes["CLEARSeamlessDecode"]
            return node.execute({"samples": samples}, vae, direction, tile_size).args[0]

    return run


def latent(height, width):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(1, 16, height, width, generator=generator)


def pixels_of(samples):
    """Return a black picture of the size that the VAE makes of a latent."""
    batch, _, height, width = samples.shape
    return torch.zeros(batch, 8 * height, 8 * width, 3)


@pytest.mark.parametrize(
    ("direction", "size"), [("both", (3, 11)), ("horizontal", (3, 20)), ("vertical", (13, 2))]
)
def test_a_rolled_latent_gives_the_rolled_picture(size, direction, decode, vae):
    samples = latent(*size)
    shift = [
        side // 3 if wraps else 0 for side, wraps in zip(size, DIRECTIONS[direction], strict=True)
    ]
    picture = decode(samples, direction)
    rolled = decode(samples.roll(shift, (2, 3)), direction)
    assert picture.shape == (1, 8 * size[0], 8 * size[1], 3)
    expected = picture.roll([8 * step for step in shift], (1, 2))
    # The host decodes in the dtype that suits the machine.
    torch.testing.assert_close(rolled, expected, atol=16 * torch.finfo(vae.vae_dtype).eps, rtol=0)
    with torch.inference_mode():
        plain = vae.decode(samples)
    assert not torch.allclose(plain, picture, atol=0.05)


def test_edges_that_do_not_wrap_are_decoded_as_ever(decode, vae):
    samples = latent(2, 60)
    with torch.inference_mode():
        plain = vae.decode(samples)
    middle = slice(8 * 28, 8 * 32)  # out of the reach of both ends
    found = decode(samples, "horizontal")
    eps = torch.finfo(vae.vae_dtype).eps
    torch.testing.assert_close(found[:, :, middle], plain[:, :, middle], atol=16 * eps, rtol=0)


def test_tiles_meet_across_the_joint_as_they_do_inside(decode, monkeypatch, vae):
    """Each tile gets a brightness of its own, as a VAE's normalisation over a tile may give it."""
    calls = []

    def of_a_tile(samples, *args, **kwargs):
        calls.append(samples.shape)
        return pixels_of(samples) + len(calls) / 100

    monkeypatch.setattr(vae, "decode", of_a_tile)
    picture = decode(latent(32, 32), "horizontal", tile_size=128)
    assert len(calls) > 4
    steps = (picture - picture.roll(-1, 2)).abs().amax((0, 1, 3))
    assert steps.max() > 0
    assert steps[-1] <= steps[:-1].max()


def test_the_end_fades_wholly_into_what_lies_before_the_beginning(decode, monkeypatch, vae):
    def ramp(samples):
        picture = pixels_of(samples)
        return torch.arange(picture.shape[2]).float()[:, None].expand_as(picture)

    monkeypatch.setattr(vae, "decode", ramp)
    column = decode(latent(2, 20), "horizontal")[0, 0, :, 0]
    margin, fade = 8 * 24, 8 * 8
    assert (column[0], column[-1]) == (margin, margin - 1)
    assert torch.equal(column[:-fade], margin + torch.arange(160.0 - fade))
    assert (column[-fade - 1 :].diff() < 0).all()


@pytest.mark.parametrize(("direction", "size"), [("horizontal", (2, 20)), ("vertical", (20, 2))])
def test_small_tiles_give_the_same_picture(direction, size, decode):
    samples = latent(*size)
    tiled = decode(samples, direction, tile_size=256)
    assert (tiled - decode(samples, direction)).abs().mean() < 0.01


def test_videos_are_refused(decode):
    with pytest.raises(ValueError, match=r"samples must be pictures, .* got \[1, 16, 3, 8, 8\]"):
        decode(torch.zeros(1, 16, 3, 8, 8))
