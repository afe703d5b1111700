"""The demo's VAE file in the host's own VAE class, which takes it without changes."""

from __future__ import annotations

import pytest
import torch

from ..vae_fixtures import picture


def test_the_host_reads_sixteen_channels_of_an_eighth(demo_vae):
    assert demo_vae.latent_channels == 16
    assert demo_vae.spacial_compression_encode() == demo_vae.spacial_compression_decode() == 8


@pytest.mark.parametrize("size", [(64, 200), (75, 90)])
def test_the_host_encodes_as_the_codec_does_and_decodes_again(demo_vae, size):
    from demo.codec.latents import encode

    image = picture(*size)
    top, left = (edge % 8 // 2 for edge in size)  # the host cuts all edges alike
    height, width = (edge // 8 * 8 for edge in size)
    image = image[:, top : top + height, left : left + width]
    latents = demo_vae.encode(picture(*size)).float()
    torch.testing.assert_close(latents, encode(image), atol=1e-4, rtol=1e-5)
    assert (demo_vae.decode(latents) - image).abs().mean() < 0.02


@torch.inference_mode()  # as the host runs nodes; it adds tiles up in place
def test_tiles_change_latents_not_at_all_and_pictures_hardly(demo_vae):
    from demo.codec.latents import encode

    image = picture(256, 224)
    latents = demo_vae.encode_tiled(image, tile_x=128, tile_y=128, overlap=32).float()
    torch.testing.assert_close(latents, encode(image), atol=1e-4, rtol=1e-5)
    tiled = demo_vae.decode_tiled(latents, tile_x=32, tile_y=32, overlap=8)
    assert (tiled - demo_vae.decode(latents)).abs().mean() < 0.01
