"""Low-frequency guidance: what it holds, what it leaves to the model, and what it is good for."""

from __future__ import annotations

import torch

from ..upscale_fixtures import low_frequencies, picture


def test_guidance_keeps_the_coarse_picture_and_decays(upscale):
    image = picture(64, 64)
    target = low_frequencies(image)

    def distance(**guidance):
        painted, _ = upscale(image, 128, denoise="1", **guidance)
        return (low_frequencies(painted) - target).pow(2).mean().sqrt()

    free = distance()
    decaying = distance(guidance_strength=1.0)
    held = distance(guidance_strength=1.0, guidance_decay=0.0)
    half = distance(guidance_strength=0.5, guidance_decay=0.0)
    assert held < 0.5 * half < 0.5 * free
    assert held < decaying < 0.8 * free


def test_full_guidance_leaves_the_small_pictures_means_in_the_latent(modules, demo):
    """At the first step, with strength 1, in the middle of areas that differ slowly."""
    seen = {}
    latent = torch.ones(1, 16, 8, 8)
    model = modules.guidance.with_low_frequency_guidance(demo.model, latent, (4, 4), 1.0, 1.0)
    (guide,) = model.model_options["sampler_post_cfg_function"]
    options = {"transformer_options": {"sample_sigmas": torch.tensor([0.9, 0.5, 0.0])}}
    denoised = torch.zeros(1, 16, 8, 8)
    for sigma in (0.9, 0.5, 0.0):
        arguments = dict(denoised=denoised, sigma=torch.tensor([sigma]), model_options=options,
                         model=demo.model.model)  # fmt: skip
        seen[sigma] = guide(arguments)
    reference = demo.model.model.process_latent_in(latent)
    torch.testing.assert_close(seen[0.9], reference)
    torch.testing.assert_close(seen[0.5], 0.5 * reference)
    assert torch.equal(seen[0.0], denoised)


def test_guidance_leaves_details_to_the_model(modules, demo):
    model = modules.guidance.with_low_frequency_guidance(
        demo.model, torch.zeros(1, 16, 8, 8), (4, 4), 1.0, 0.0
    )
    (guide,) = model.model_options["sampler_post_cfg_function"]
    options = {"transformer_options": {"sample_sigmas": torch.tensor([0.9, 0.0])}}
    reference = demo.model.model.process_latent_in(torch.zeros(1, 16, 8, 8))
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4).expand(1, 16, 8, 8)
    arguments = dict(denoised=reference + checks, sigma=torch.tensor([0.9]),
                     model_options=options, model=demo.model.model)  # fmt: skip
    torch.testing.assert_close(guide(arguments), reference + checks)


def autocorrelation(image):
    """Return the normalised autocorrelation of the luminance, ``[H, W]``; 1 at no shift."""
    grey = image.mean(dim=-1)[0]
    spectrum = torch.fft.fft2(grey - grey.mean())
    power = torch.fft.ifft2(spectrum.abs().pow(2)).real
    return power / power[0, 0]


def repeats(image, parent):
    """Return how much more alike two places far from each other are than in the small picture."""
    more = autocorrelation(at_size_of(image, parent)) - autocorrelation(parent)
    near = parent.shape[1] // 8
    for rows in (slice(None, near), slice(-near, None)):
        for columns in (slice(None, near), slice(-near, None)):
            more[rows, columns] = 0
    return more.max()


def at_size_of(image, parent):
    """Return means over areas."""
    return low_frequencies(image, parent.shape[1:3]).movedim(1, -1)


def test_guidance_keeps_a_picture_from_repeating_itself(upscale, demo, demo_vae):
    """A painted picture, at twice the size. Measured: 0.244 and 0.054; 0.154 and 0.085."""
    import comfy.sample

    with torch.inference_mode():
        latent = torch.zeros(1, 16, 16, 16)
        noise = comfy.sample.prepare_noise(latent, 42)
        sampling = (8, 1.0, "euler", "simple", demo.prompt, demo.prompt, latent)
        parent = demo_vae.decode(
            comfy.sample.sample(demo.model, noise, *sampling, disable_pbar=True)
        )

    def measured(strength):
        given = dict(denoise="0.7", steps=10, trained_size=128, vae=demo_vae)
        result, _ = upscale(parent, 256, guidance_strength=strength, **given)
        away = (at_size_of(result, parent) - parent).pow(2).mean().sqrt()
        return repeats(result, parent), away

    free, guided = measured(0.0), measured(1.0)
    assert guided[0] < min(0.08, 0.6 * free[0])
    assert guided[1] < 0.8 * free[1]
