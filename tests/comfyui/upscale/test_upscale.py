"""The cascade on the demo's model in the real host: equal to img2img, of any input, seamless."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ..upscale_fixtures import noisy, resized, run_node


def test_without_noise_the_result_is_the_resized_picture_exactly(upscale, vae):
    image = noisy(48, 64)
    result, latent = upscale(image, 256, denoise="0")
    assert torch.equal(result, resized(resized(image, 128, 96), 256, 192))
    with torch.inference_mode():
        assert torch.equal(latent["samples"], vae.encode(result))


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun", "uni_pc"])
def test_without_guidance_it_is_the_hosts_ksampler_advanced(upscale, demo, vae, sampler):
    from nodes import common_ksampler

    image = noisy(64, 48)
    painted, latent = upscale(image, 128, denoise="0.7", steps=5, cfg=1.5, sampler_name=sampler)
    with torch.inference_mode():
        enlarged = {"samples": vae.encode(resized(image, 96, 128))}
        arguments = (3, 5, 1.5, sampler, "simple", demo.prompt, demo.prompt, enlarged)
        (expected,) = common_ksampler(
            demo.model, *arguments, start_step=1, last_step=10000, force_full_denoise=True
        )
        assert torch.equal(latent["samples"], expected["samples"])
        assert torch.equal(painted, vae.decode(expected["samples"]))


def test_without_guidance_it_is_sampler_custom_on_the_last_sigmas(upscale, demo, vae):
    """The authors' recipe: the last 14 of 20 steps."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import BasicScheduler, SamplerCustom, SplitSigmas

    image = noisy(64, 64)
    _, latent = upscale(image, 128, denoise="0.7", steps=20)
    with torch.inference_mode():
        enlarged = {"samples": vae.encode(resized(image, 128, 128))}
    (sigmas,) = run_node(BasicScheduler, model=demo.model, scheduler="simple", steps=20, denoise=1)
    _, last = run_node(SplitSigmas, sigmas=sigmas, step=6)
    assert len(last) == 15
    expected, _ = run_node(
        SamplerCustom,
        **dict(model=demo.model, positive=demo.prompt, negative=demo.prompt, cfg=1.0),
        **dict(add_noise=True, noise_seed=3, sigmas=last, latent_image=enlarged),
        sampler=comfy.samplers.sampler_object("euler"),
    )
    assert torch.equal(latent["samples"], expected["samples"])


def test_a_stage_beyond_the_trained_size_is_as_behind_clear_high_resolution(
    upscale, demo, nodes, stages
):
    image = noisy(64, 64)
    alone, _ = upscale(image, 128, trained_size=64)
    high = nodes.CLEARHighRes(demo.model, 10.0, False)
    behind, _ = upscale(image, 128, model=high)
    plain, _ = upscale(image, 128)
    assert torch.equal(alone, behind)
    assert not torch.equal(alone, plain)
    # The node sets both itself, whatever stands in front of it.
    assert torch.equal(upscale(image, 128, trained_size=64, model=high)[0], alone)
    assert torch.equal(upscale(image, 128, trained_size=128, model=high)[0], plain)


def test_the_model_is_left_as_it_was(upscale, demo, stages):
    image = noisy(64, 64)
    before, _ = upscale(image, 128, seed=1)
    options = {key: repr(value) for key, value in demo.model.model_options.items()}
    for trained_size in (0, 64):
        upscale(image, 128, guidance_strength=1.0, trained_size=trained_size)
    assert {key: repr(value) for key, value in demo.model.model_options.items()} == options
    assert not demo.model.object_patches
    stages._stages.clear()
    assert torch.equal(upscale(image, 128, seed=1)[0], before)


def test_a_latent_is_taken_in_place_of_a_picture_with_its_mask(upscale, vae):
    image = noisy(64, 64)
    with torch.inference_mode():
        latent = {"samples": vae.encode(image)}
        decoded = vae.decode(latent["samples"])
    free, _ = upscale(latent=latent, size=128)
    assert torch.equal(free, upscale(decoded, 128)[0])
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    masked, result = upscale(latent=latent | {"noise_mask": mask}, size=128)
    with torch.inference_mode():
        kept = vae.encode(resized(decoded, 128, 128))
    torch.testing.assert_close(result["samples"][..., :8], kept[..., :8], atol=1e-5, rtol=1e-5)
    assert (result["samples"][..., 8:] - kept[..., 8:]).abs().mean() > 0.05
    assert not torch.equal(masked, free)


def test_a_batch_is_enlarged_as_one_and_alpha_is_left_out(upscale):
    images = torch.cat([noisy(48, 64), noisy(48, 64, seed=1)])
    images = torch.cat([images, torch.ones(2, 48, 64, 1)], dim=-1)
    result, latent = upscale(images, 128, denoise="0.25")
    assert result.shape == (2, 96, 128, 3)
    assert latent["samples"].shape == (2, 16, 12, 16)


def test_sides_are_rounded_with_a_word(upscale, upscaling):
    result, _ = upscale(noisy(70, 100), 200)
    assert result.shape[1:3] == (144, 208)
    first, rounded, *_ = upscaling()
    assert first.startswith("208 x 144 from 100 x 70 in 2 stages, ")
    assert rounded.startswith("200 x 140 is rounded to 208 x 144: model and VAE need multiples")


def test_areas_grow_with_the_picture(modules, upscale, demo):
    area = [[demo.prompt[0][0], {**demo.prompt[0][1], "area": (2, 4, 2, 0), "strength": 0.5}]]
    ((_, share),) = modules.cascade.areas_as_shares(area, 4, 8)
    assert share["area"] == ("percentage", 0.5, 0.5, 0.5, 0)
    assert area[0][1]["area"] == (2, 4, 2, 0)
    assert modules.cascade.areas_as_shares([[None, share]], 1, 1)[0][1]["area"] == share["area"]

    areas = []

    def watch(args):
        areas.extend(tuple(entry["area"]) for entry in args["cond"] if "area" in entry)
        return args["denoised"]

    model = demo.model.clone()
    model.set_model_sampler_post_cfg_function(watch)
    once = dict(steps=1, denoise="1", cfg=1.0)
    upscale(noisy(32, 64), 256, model=model, positive=demo.prompt + area, **once)
    assert areas == [(4, 8, 4, 0), (8, 16, 8, 0)]


def test_masks_and_controlnets_pass_to_the_hosts_own_scaling(upscale, demo):
    """A mask of the small picture; a ControlNet that notes the sizes that it is asked for."""
    import comfy.controlnet

    asked = []

    class Net(comfy.controlnet.ControlBase):
        def get_control(self, x_noisy, *_):
            asked.append(tuple(x_noisy.shape[-2:]))

    image = noisy(32, 32)
    plain, _ = upscale(image, 128)
    left = torch.zeros(1, 32, 32)
    left[..., :16] = 1
    text, extra = demo.prompt[0]
    masked = [[text, {**extra, "mask": left, "mask_strength": 1.0, "set_area_to_bounds": False}]]
    other = [[text.flip(1), {**extra, "mask": 1 - left, "mask_strength": 1.0}]]
    guided = [[context, {**entry, "control": Net()}] for context, entry in masked + other]
    painted, _ = upscale(image, 128, positive=guided)
    assert set(asked) == {(8, 8), (16, 16)}
    assert not torch.equal(painted, plain)


def test_an_upscale_model_enlarges_before_the_painting(upscale, monkeypatch):
    from comfy.model_patcher import ModelPatcher

    cpu = torch.device("cpu")

    class Model:
        scale = 4
        model = torch.nn.Identity()
        patcher = ModelPatcher(torch.nn.Identity(), load_device=cpu, offload_device=cpu)

        def to(self, device):
            return self

        def __call__(self, image):
            return torch.zeros_like(image).repeat_interleave(4, -1).repeat_interleave(4, -2) + 0.25

    result, _ = upscale(noisy(64, 48), 128, denoise="0", upscale_model=Model())
    assert result.shape == (1, 128, 96, 3)
    assert (result - 0.25).abs().max() < 1 / 255


def test_tiles_leave_no_borders_and_the_same_picture(modules, demo_vae):
    """Steps across former borders of tiles are as those elsewhere, in latents and in pictures."""
    image = noisy(256, 256)
    with torch.inference_mode():
        whole = modules.pixels.encode(demo_vae, image, 0)
        latent = modules.pixels.encode(demo_vae, image, 128)
        torch.testing.assert_close(latent, whole, atol=1e-4, rtol=1e-4)
        plain, tiled = (modules.pixels.decode(demo_vae, whole, tile) for tile in (0, 128))
    assert (tiled - plain).abs().mean() < 2e-3
    borders = [at for start in (96, 192) for at in (start, start + 32)]
    for axis in (1, 2):
        steps = tiled.diff(dim=axis).abs().mean(dim=[d for d in range(4) if d != axis])
        phases = [steps[phase::8] for phase in range(8)]  # the codec itself has a grid of 8
        for at in borders:
            for before in (at - 1, at):
                if before < len(steps):
                    usual = phases[before % 8]
                    assert steps[before] < usual.mean() + 4 * usual.std() + 1e-4


SENTENCES = {
    "nothing": (dict(image=None), r"needs either an image or a latent, got neither\."),
    "both": (dict(latent={"samples": torch.zeros(1, 16, 8, 8)}), "got both. Connect one of them"),
    "too small": (dict(size=64), r"at least the picture's longer side, 128, got 64\. Set a larger"),
    "denoise": (dict(denoise="much"), r'denoise must be numbers .* "0\.7, 0\.5", got "much"'),
    "decimal comma": (dict(denoise="0,7"), r'points in its numbers, got "0,7": write 0\.7, or'),
    "decimal commas": (dict(denoise="0,7, 0,5"), r"points in its numbers, .*: write 0\.7, or with"),
    "one or two": (dict(denoise="0,1"), r"write 0\.1, or with a space behind the comma for two"),
    "stages": (dict(stages="2K"), r'stages must be numbers .*"2048, 4096", got "2K"'),
    "negative": (dict(denoise="-1"), r'one number from 0 to 1 .* got "-1"'),
    "tiny": (dict(image=torch.zeros(1, 8, 8, 3)), r"at least 16 pixels on each side, got 8 x 8"),
    "latent": (dict(image=None, latent={"samples": torch.zeros(1, 4, 8, 8)}),
               r"must have 16 channels for this model, got 4\."),
    "vae": (dict(vae=SimpleNamespace(latent_channels=4)), r"must make latents of 16 .* makes 4\."),
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_a_mistake_is_one_sentence(upscale, case):
    changes: dict[str, Any]
    changes, sentence = SENTENCES[case]
    with pytest.raises(ValueError, match=sentence) as error:
        upscale(**dict(image=noisy(128, 96)) | changes)
    assert "\n" not in str(error.value)


@given(st.lists(st.floats(0, 1, width=16), max_size=5), st.sampled_from([",", ", ", " ", ";"]))
def test_numbers_are_read_as_they_are_written(product, values, between):
    upscale = product("comfyui.upscale.run")
    assert upscale.read_numbers("denoise", between.join(map(str, values)), "1") == values
