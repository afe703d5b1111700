"""The demo's VAE: an encoder set by hand, a trained decoder, and the file that holds both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from demo.codec import decoder_start, encoder, taesd, vae_file
from demo.codec import latents as codec

# A part of scikit-image's camera.png by Lav Varshney (CC0), which the decoder was not trained on.
PHOTOGRAPH = Path(__file__).with_name("camera.png")


def photograph():
    """Read a photograph: ``[1, 160, 160, 3]``."""
    return torch.from_numpy(np.array(Image.open(PHOTOGRAPH).convert("RGB")))[None] / 255


def encode(images, dtype=torch.float32):
    """Encode as ComfyUI does with the VAE file, in a dtype."""
    network = encoder.encoder_by_hand(vae_file.SCALE, vae_file.SHIFT).to(dtype)
    with torch.no_grad():
        values = network((images * 2 - 1).to(dtype).permute(0, 3, 1, 2) * 0.5 + 0.5)
    return (values / vae_file.SCALE + vae_file.SHIFT).float()


def decode(latents, dtype=torch.float32):
    """Decode as ComfyUI does with the VAE file, in a dtype."""
    network = taesd.decoder().to(dtype)
    network.load_state_dict(load_file(vae_file.DECODER))
    with torch.no_grad():
        values = network(((latents - vae_file.SHIFT) * vae_file.SCALE).to(dtype))
    return values.float().clamp(0, 1).permute(0, 2, 3, 1)


def decode_linearly(latents):
    """Give each 8 x 8 pixels the picture of least squares: the best without a look around."""
    undo = torch.linalg.pinv(encoder.responses().flatten(1))
    pixels = undo @ (latents - encoder.black()[:, None, None]).flatten(2)
    size = tuple(8 * edge for edge in latents.shape[2:])
    return torch.nn.functional.fold(pixels, size, 8, stride=8).clamp(0, 1).permute(0, 2, 3, 1)


def psnr(image, reference):
    """Return the signal-to-noise ratio in decibel."""
    return float(-10 * torch.log10((image - reference).square().mean()))


@pytest.mark.parametrize("size", [(8, 8), (24, 56), (128, 40), (64, 200)])
def test_the_encoder_computes_the_latents_of_the_codec(size):
    noise = torch.rand(2, *size, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode(noise), codec.encode(noise), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 0.01), (torch.float16, 0.002)])
def test_the_encoder_loses_little_in_half_precision(dtype, share):
    # CPUs without instructions for it take a hundred times as long: a part of the photograph.
    image = photograph()[:, :80, :80]
    latents = codec.encode(image)
    assert (encode(image, dtype) - latents).std() < share * latents.std()


def test_the_latents_are_orthogonal_waves_of_unit_variance():
    table = codec.wave_table()
    torch.testing.assert_close(table @ table.T / 64, torch.eye(13), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(3, 5), (6, 4)])
def test_a_new_decoder_tells_every_pixel_its_place_in_the_latent_pixel(size):
    torch.manual_seed(0)
    network = decoder_start.marking_decoder()
    latents = torch.randn(1, 16, *size) * 0.3
    with torch.no_grad():
        hidden = network[:-1](latents)
    rows, columns = (torch.arange(8 * edge) % 8 for edge in size)
    for bit, marks in zip((4, 2, 1), decoder_start.MARKS, strict=True):
        for axis, places in (("x", columns[None]), ("y", rows[:, None])):
            expected = ((places & bit) == 0).float().expand(8 * size[0], 8 * size[1])
            torch.testing.assert_close(hidden[0, marks[axis]], expected)


def test_the_decoder_beats_the_best_linear_one_on_a_photograph_it_has_not_seen():
    image = photograph()
    latents = codec.encode(image)
    trained, linear = psnr(decode(latents), image), psnr(decode_linearly(latents), image)
    assert trained > 27.5 and trained > linear + 0.8


def test_the_decoder_withstands_the_noise_that_a_diffusion_model_leaves():
    image = photograph()
    latents = codec.encode(image)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    assert psnr(decode(latents + 0.05 / codec.FLUX_SCALE * noise), image) > 27.3


def test_decoding_shows_no_edges_between_latent_pixels():
    image = photograph()
    error = decode(codec.encode(image)) - image
    steps = [error.diff(dim=dim).abs().movedim(dim, 0) for dim in (1, 2)]
    seams = torch.stack([step[7::8].mean() for step in steps]).mean()
    assert seams < torch.stack([step.mean() for step in steps]).mean()


@pytest.mark.parametrize("colour", [(0, 0, 0), (0.5, 0.5, 0.5), (1, 1, 1), (0.8, 0.2, 0.1)])
def test_a_flat_colour_comes_back_flat(colour):
    image = torch.tensor(colour).expand(1, 128, 128, 3)
    again = decode(codec.encode(image))
    assert (again - image)[:, 32:-32, 32:-32].abs().max() < 0.03


def test_the_decoder_loses_little_in_half_precision():
    latents = codec.encode(photograph()[:, :80, :80])
    assert psnr(decode(latents, torch.bfloat16), decode(latents)) > 45


def test_the_file_holds_both_networks_and_the_scale(tmp_path):
    path = vae_file.write_vae_file(tmp_path)
    assert path == tmp_path / "models" / "vae" / "clear_demo_vae.safetensors"
    assert list(path.parent.iterdir()) == [path]
    weights = load_file(path)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    for name, network in (("encoder", taesd.encoder()), ("decoder", taesd.decoder())):
        names = {f"taesd_{name}.{key}" for key in network.state_dict()}
        assert names == {key for key in weights if key.startswith(f"taesd_{name}.")}
    assert weights["vae_scale"] == vae_file.SCALE
    assert weights["vae_shift"] == pytest.approx(codec.FLUX_SHIFT)


def test_the_shipped_decoder_is_small():
    assert vae_file.DECODER.stat().st_size < 2_500_000
