"""The nodes that hold pictures, on every architecture: CLEAR Upscale and CLEAR Seamless Decode."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ..upscale_fixtures import DEFAULTS
from ..vae_fixtures import picture
from .zoo import ENTRIES
from .zoo_models import conditioning, present

STEPS, FIRST = 4, 2
"""Of the schedule, and the first one that is run with a denoise of 0.5."""


class MeansVAE:
    """Means of pixels as latents: shapes and limits as the host's VAEs have them.

    Those for videos take several pictures for frames, and give a latent with an axis for them.
    """

    def __init__(self, channels, compression, dimensions):
        self.latent_channels, self.compression = channels, compression
        self.latent_dim = dimensions

    def spacial_compression_encode(self):
        return self.compression

    def spacial_compression_decode(self):
        return self.compression

    def encode(self, image):
        means = F.avg_pool2d(2 * image.movedim(-1, 1) - 1, self.compression)
        latent = means.repeat(1, -(-self.latent_channels // 3), 1, 1)[:, : self.latent_channels]
        if self.latent_dim == 2:
            return latent
        assert len(image) == 1, "frames of one video"
        return latent.unsqueeze(2)

    def decode(self, latent):
        assert latent.ndim == self.latent_dim + 2
        assert latent.shape[1] == self.latent_channels
        flat = latent if self.latent_dim == 2 else latent[:, :, 0]
        pixels = F.interpolate(flat[:, :3], scale_factor=self.compression, mode="nearest")
        image = (pixels.movedim(1, -1) / 2 + 0.5).clamp(0, 1)
        return image if self.latent_dim == 2 else image.unsqueeze(1)


@pytest.fixture
def kit(zoo_model, product):
    """A model, its VAE, its prompt and the edge of its tokens in pixels."""

    def make(name):
        entry, model = ENTRIES[name], zoo_model(name)
        data = product("comfyui.families").require_family(model).data
        form = model.get_model_object("latent_format")
        vae = MeansVAE(entry.channels, data.latent_px, form.latent_dimensions)
        return model, vae, conditioning(entry, 9), entry.patch * data.latent_px

    return make


def with_sigmas(model, seen):
    """Return a clone of which the noise levels of its runs are written down."""

    def guided(args):
        seen.append(args["model_options"]["transformer_options"]["sample_sigmas"])
        return args["denoised"]

    model = model.clone()
    model.set_model_sampler_post_cfg_function(guided)
    return model


@pytest.mark.parametrize("name", present())
def test_a_picture_is_enlarged_by_the_models_own_schedule(
    name, kit, node_classes, stages, upscaling
):
    import comfy.samplers

    model, vae, prompt, px = kit(name)
    sigmas = []
    given = dict(model=with_sigmas(model, sigmas), vae=vae, positive=prompt, negative=prompt)
    given |= dict(image=picture(2 * px, 3 * px), size=12 * px, guidance_strength=0.5)
    given |= dict(trained_size=3 * px, steps=STEPS)
    with torch.inference_mode():
        image, latent = node_classes["CLEARUpscale"].execute(**{**DEFAULTS, **given}).args
    assert image.shape == (1, 8 * px, 12 * px, 3)
    assert image.isfinite().all()
    dimensions = model.get_model_object("latent_format").latent_dimensions
    assert latent["samples"].ndim == dimensions + 2
    sampling = model.get_model_object("model_sampling")
    own = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS)[FIRST:]
    assert len(sigmas) == 2 * (STEPS - FIRST)  # of two stages
    assert all(one.cpu().equal(own) for one in sigmas)
    first, second = (line for line in upscaling() if line.startswith("stage "))
    assert first.startswith(f"stage 1 of 2, {6 * px} x {4 * px}, the last 2 of 4 steps")
    assert second.startswith(f"stage 2 of 2, {12 * px} x {8 * px}, the last 2 of 4 steps")


@pytest.mark.parametrize("name", present())
def test_a_size_between_tokens_is_rounded_to_them(name, kit, node_classes, stages, upscaling):
    model, vae, prompt, px = kit(name)
    given = dict(model=model, vae=vae, positive=prompt, negative=prompt, denoise="0")
    given |= dict(image=picture(2 * px, 3 * px), size=4 * px + 3)
    with torch.inference_mode():
        image, _ = node_classes["CLEARUpscale"].execute(**{**DEFAULTS, **given}).args
    assert image.shape == (1, 3 * px, 4 * px, 3)
    assert any(f"model and VAE need multiples of {px} pixels" in line for line in upscaling())


@pytest.mark.parametrize("name", present())
def test_a_latent_and_a_batch_of_two_are_enlarged_too(name, kit, node_classes, stages):
    model, vae, prompt, px = kit(name)
    pictures = torch.cat((picture(2 * px, 2 * px), picture(2 * px, 2 * px).flip(1)))
    samples = torch.cat([vae.encode(one) for one in pictures.split(1)])
    given = dict(model=model, vae=vae, positive=prompt, negative=prompt, size=4 * px)
    given |= dict(latent={"samples": samples}, denoise="0.3")
    with torch.inference_mode():
        image, latent = node_classes["CLEARUpscale"].execute(**{**DEFAULTS, **given}).args
    assert image.shape == (2, 4 * px, 4 * px, 3)
    assert image.isfinite().all()
    assert len(latent["samples"]) == 2
    assert not image[0].equal(image[1])


@pytest.mark.parametrize("tile", [0, 128])
@pytest.mark.parametrize("name", present())
def test_the_latent_of_a_seamless_picture_is_decoded_around_its_edges(
    name, tile, kit, node_classes
):
    """A VAE that sees no neighbours has no seam: the decoded picture is the host's own."""
    _, vae, _, px = kit(name)
    given = picture(4 * px, 4 * px)
    samples = vae.encode(given)
    (decoded,) = (
        node_classes["CLEARSeamlessDecode"].execute({"samples": samples}, vae, "both", tile).args
    )
    expected = vae.decode(samples)
    expected = expected[:, 0] if expected.ndim == 5 else expected
    assert decoded.shape == given.shape
    assert (decoded - expected).abs().max() <= 1e-6
