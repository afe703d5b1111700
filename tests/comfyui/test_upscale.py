"""The cascade on the demo's model in the real host: equal to img2img, guided, kept, seamless."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from .test_demo_vae import picture, vae  # noqa: F401 - a fixture, and a smooth picture

PROMPT = "a photograph of an orange dahlia flower"
DEFAULTS = dict(
    stages="", denoise="0.5", seed=3, steps=4, cfg=1.0, sampler_name="euler", scheduler="simple",
    guidance_strength=0.0, guidance_decay=1.0, trained_size=0, vae_tile=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def demo(host):
    """The demo's model, and an encoded prompt."""
    from demo.nodes.network import load_model
    from demo.nodes.text import DemoCLIP

    clip = DemoCLIP()
    tokens = clip.tokenize(PROMPT)
    prompt = clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": 3.5})
    return SimpleNamespace(model=load_model(), prompt=prompt)


@pytest.fixture
def modules(pack):
    """The pack's modules for the cascade, by their last names."""
    start = f"{pack.__name__}.clear_attention.comfyui.upscale"
    found = {name[len(start) :].lstrip("_") or "run": module
             for name, module in sys.modules.items() if name.startswith(start)}  # fmt: skip
    return SimpleNamespace(**found)


@pytest.fixture
def stages(modules, monkeypatch):
    """What is kept of earlier runs: nothing yet."""
    fresh = modules.cache.StageCache()
    monkeypatch.setattr(modules.cascade, "STAGES", fresh)
    return fresh


@pytest.fixture
def upscale(demo, vae, node_classes, stages):  # noqa: F811
    """Run the node: ``upscale(image, size, **changes)`` gives its image and latent."""

    def run(image=None, size=256, **changes):
        inputs = dict(model=demo.model, vae=vae, positive=demo.prompt, negative=demo.prompt)
        inputs |= DEFAULTS | dict(image=image, size=size) | changes
        with torch.inference_mode():
            output = node_classes["CLEARUpscale"].execute(**inputs)
        return output.args

    return run


@pytest.fixture
def steps(monkeypatch):
    """The steps that samplers ran, as (steps so far, of how many), one list for all stages."""
    import comfy.utils

    moves: list[tuple[int, int]] = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *a, **k: moves.append((value, total))
    )
    return moves


@pytest.fixture
def lines(caplog):
    """The report's lines in the log."""
    caplog.set_level(logging.INFO)
    start = "CLEAR Upscale: "
    return lambda: [
        r.getMessage()[len(start) :] for r in caplog.records if r.getMessage().startswith(start)
    ]


def resized(image, width, height):
    """Enlarge as the host's ImageScale does."""
    import comfy.utils

    return comfy.utils.common_upscale(
        image.movedim(-1, 1), width, height, "lanczos", "center"
    ).movedim(1, -1)


def noisy(height, width, seed=0):
    """Draw a picture with details of every size."""
    generator = torch.Generator().manual_seed(seed)
    return (picture(height, width) + 0.2 * torch.randn(1, height, width, 3, generator=generator)
            ).clamp(0, 1)  # fmt: skip


def test_without_noise_the_result_is_the_resized_picture_exactly(upscale, vae):  # noqa: F811
    image = noisy(96, 128)
    result, latent = upscale(image, 512, denoise="0")
    assert torch.equal(result, resized(resized(image, 256, 192), 512, 384))
    with torch.inference_mode():
        assert torch.equal(latent["samples"], vae.encode(result))


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun", "uni_pc"])
def test_without_guidance_it_is_the_hosts_ksampler_advanced(upscale, demo, vae, sampler):  # noqa: F811
    from nodes import common_ksampler

    image = noisy(128, 96)
    painted, latent = upscale(image, 256, denoise="0.7", steps=5, cfg=1.5, sampler_name=sampler)
    with torch.inference_mode():
        enlarged = {"samples": vae.encode(resized(image, 192, 256))}
        arguments = (3, 5, 1.5, sampler, "simple", demo.prompt, demo.prompt, enlarged)
        (expected,) = common_ksampler(
            demo.model, *arguments, start_step=1, last_step=10000, force_full_denoise=True
        )
        assert torch.equal(latent["samples"], expected["samples"])
        assert torch.equal(painted, vae.decode(expected["samples"]))


def test_without_guidance_it_is_sampler_custom_on_the_last_sigmas(upscale, demo, vae):  # noqa: F811
    """The authors' recipe: the last 14 of 20 steps."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import BasicScheduler, SamplerCustom, SplitSigmas

    image = noisy(64, 64)
    _, latent = upscale(image, 128, denoise="0.7", steps=20)
    with torch.inference_mode():
        enlarged = {"samples": vae.encode(resized(image, 128, 128))}
        (sigmas,) = BasicScheduler.execute(demo.model, "simple", 20, 1.0).args
        _, last = SplitSigmas.execute(sigmas, 6).args
        assert len(last) == 15
        euler = comfy.samplers.sampler_object("euler")
        expected, _ = SamplerCustom.execute(
            demo.model, True, 3, 1.0, demo.prompt, demo.prompt, euler, last, enlarged
        ).args
    assert torch.equal(latent["samples"], expected["samples"])


def test_a_stage_beyond_the_trained_size_is_as_behind_clear_high_resolution(
    upscale, demo, nodes, stages
):
    image = noisy(128, 128)
    alone, _ = upscale(image, 256, trained_size=128)
    high = nodes.CLEARHighRes(demo.model, 10.0, False)
    behind, _ = upscale(image, 256, model=high)
    plain, _ = upscale(image, 256)
    assert torch.equal(alone, behind)
    assert not torch.equal(alone, plain)
    # The node sets both itself, whatever stands in front of it.
    assert torch.equal(upscale(image, 256, trained_size=128, model=high)[0], alone)
    assert torch.equal(upscale(image, 256, trained_size=256, model=high)[0], plain)


def low_frequencies(image, cells=8):
    return torch.nn.functional.adaptive_avg_pool2d(image.movedim(-1, 1), cells)


def test_guidance_keeps_the_coarse_picture_and_decays(upscale):
    image = picture(128, 128)
    target = low_frequencies(image)

    def distance(**guidance):
        painted, _ = upscale(image, 256, denoise="1", **guidance)
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


def ran(lines):
    """Return the stages that were painted and those that were kept, by their numbers."""
    found = [line.split(",") for line in lines if line.startswith("stage ")]
    numbers = {kept: [int(line[0].split()[1]) for line in found if ("kept" in line[-1]) == kept]
               for kept in (False, True)}  # fmt: skip
    return numbers[False], numbers[True]


def test_a_changed_last_stage_is_the_only_one_that_runs_again(upscale, stages, lines, caplog):
    image = noisy(64, 64)
    upscale(image, 256, denoise="0.5, 0.5")
    assert ran(lines()) == ([1, 2], [])
    caplog.clear()
    changed, latent = upscale(image, 256, denoise="0.5, 0.75")
    assert ran(lines()) == ([2], [1])
    stages._stages.clear()
    caplog.clear()
    again, latent_again = upscale(image, 256, denoise="0.5, 0.75")
    assert ran(lines()) == ([1, 2], [])
    assert torch.equal(changed, again)
    assert torch.equal(latent["samples"], latent_again["samples"])


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=4), dict(cfg=2.0), dict(steps=5), dict(scheduler="beta"), dict(denoise="0.75"),
        dict(sampler_name="heun"), dict(guidance_strength=0.5), dict(vae_tile=128),
        dict(trained_size=64), "image", "model", "positive", "negative", "vae", "prompt's numbers",
    ],
    ids=str,
)  # fmt: skip
def test_whatever_a_stage_depends_on_makes_it_run_again(
    upscale, demo, vae, lines, caplog, change  # noqa: F811
):  # fmt: skip
    import copy

    image = noisy(64, 64)
    upscale(image, 128)
    caplog.clear()
    upscale(image.clone(), 128)
    assert ran(lines()) == ([], [1]), "an equal picture is the same"
    caplog.clear()
    other = {
        "image": dict(image=image.flip(1)),
        "model": dict(model=demo.model.clone()),
        "vae": dict(vae=copy.copy(vae)),
        "positive": dict(positive=demo.prompt * 2),
        "negative": dict(negative=demo.prompt * 2),
        "prompt's numbers": dict(positive=[[demo.prompt[0][0] * 1.001, demo.prompt[0][1]]]),
    }
    changes = other[change] if isinstance(change, str) else change
    upscale(**{"image": image, "size": 128, **changes})
    assert ran(lines()) == ([1], [])


def test_kept_stages_are_bounded_and_go_with_their_model(modules):
    Finished = modules.cache.Finished
    cache = modules.cache.StageCache(max_bytes=1000)

    class Model:
        pass

    owner, other = Model(), Model()
    small = Finished(torch.zeros(50), torch.zeros(50))
    assert small.bytes == 400
    for key in range(3):
        cache.put(key, small, owner)
        cache.get(0)
    assert [cache.get(key) is not None for key in range(3)] == [True, False, True]
    cache.put("large", Finished(torch.zeros(10_000)), other)
    assert len(cache) == 1 and cache.get("large")
    cache.put("small", small, owner)
    assert len(cache) == 1 and cache.get("small")
    del owner
    assert len(cache) == 0


def test_objects_are_alike_if_they_are_the_same_and_never_after_they_are_gone(modules):
    fingerprint = modules.cache.fingerprint

    class Net:
        pass

    net = Net()
    key = fingerprint([net, {"a": (1, 2.0, None)}])
    assert key == fingerprint([net, {"a": (1, 2.0, None)}])
    assert key != fingerprint([Net(), {"a": (1, 2.0, None)}])
    assert fingerprint(1) != fingerprint(True) and fingerprint("1") != fingerprint(1)
    assert fingerprint([1]) != fingerprint((1,))
    assert fingerprint(slice(1)) != fingerprint(slice(1)), "what cannot be told apart is unlike"
    known = hash(key)
    del net
    assert hash(key) == known and key != fingerprint([Net(), {"a": (1, 2.0, None)}])


def test_one_progress_bar_moves_over_all_stages_and_tiles(upscale, steps):
    upscale(noisy(64, 64), 256, vae_tile=128, denoise="0.5, 0.5")
    # Two steps and a move each for encoding and decoding; the second stage counts fourfold.
    assert [value for value, _ in steps] == [1, 2, 3, 4, 8, 12, 16, 20]
    assert {total for _, total in steps} == {20}


def test_kept_stages_count_as_done(upscale, steps):
    image = noisy(64, 64)
    upscale(image, 128)
    steps.clear()
    upscale(image, 256)
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


def test_an_interruption_keeps_the_finished_stages_and_says_how_to_get_them(
    upscale, monkeypatch, lines, caplog, stages
):
    import comfy.model_management as management
    import comfy.utils

    def stop(value, total, *_, **__):
        if value == 12:  # within the second stage
            management.interrupt_current_processing()

    image = noisy(64, 64)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", stop)
    with pytest.raises(management.InterruptProcessingException):
        upscale(image, 256)
    assert lines()[-1] == (
        "stopped: queue again to go on; size 128 gives the last finished stage at once"
    )
    assert len(stages) == 1
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", None)
    caplog.clear()
    last, _ = upscale(image, 128)
    assert ran(lines()) == ([], [1])
    caplog.clear()
    resumed, _ = upscale(image, 256)
    assert ran(lines()) == ([2], [1])
    stages._stages.clear()
    assert torch.equal(upscale(image, 256)[0], resumed)
    assert torch.equal(upscale(image, 128)[0], last)


def test_a_latent_is_taken_in_place_of_a_picture_with_its_mask(upscale, vae):  # noqa: F811
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


def test_sides_are_rounded_with_a_word(upscale, lines):
    result, _ = upscale(noisy(70, 100), 200)
    assert result.shape[1:3] == (144, 208)
    assert lines()[0].startswith("200 x 140 is rounded to 208 x 144: model and VAE need multiples")


def test_areas_grow_with_the_picture(modules, upscale, demo):
    area = [[demo.prompt[0][0], {**demo.prompt[0][1], "area": (4, 8, 4, 0), "strength": 0.5}]]
    ((_, share),) = modules.cascade.areas_as_shares(area, 8, 16)
    assert share["area"] == ("percentage", 0.5, 0.5, 0.5, 0)
    assert area[0][1]["area"] == (4, 8, 4, 0)
    assert modules.cascade.areas_as_shares([[None, share]], 1, 1)[0][1]["area"] == share["area"]

    areas = []

    def watch(args):
        areas.extend(tuple(entry["area"]) for entry in args["cond"] if "area" in entry)
        return args["denoised"]

    model = demo.model.clone()
    model.set_model_sampler_post_cfg_function(watch)
    once = dict(steps=1, denoise="1", cfg=1.0)
    upscale(noisy(64, 128), 512, model=model, positive=demo.prompt + area, **once)
    assert areas == [(8, 16, 8, 0), (16, 32, 16, 0)]


def test_masks_and_controlnets_pass_to_the_hosts_own_scaling(upscale, demo):
    """A mask of the small picture; a ControlNet that notes the sizes that it is asked for."""
    import comfy.controlnet

    asked = []

    class Net(comfy.controlnet.ControlBase):
        def get_control(self, x_noisy, *_):
            asked.append(tuple(x_noisy.shape[-2:]))

    image = noisy(64, 64)
    plain, _ = upscale(image, 256)
    left = torch.zeros(1, 64, 64)
    left[..., :32] = 1
    text, extra = demo.prompt[0]
    masked = [[text, {**extra, "mask": left, "mask_strength": 1.0, "set_area_to_bounds": False}]]
    other = [[text.flip(1), {**extra, "mask": 1 - left, "mask_strength": 1.0}]]
    guided = [[context, {**entry, "control": Net()}] for context, entry in masked + other]
    painted, _ = upscale(image, 256, positive=guided)
    assert set(asked) == {(16, 16), (32, 32)}
    assert not torch.equal(painted, plain)


def test_an_upscale_model_enlarges_before_the_painting(upscale, monkeypatch):
    class Model:
        scale = 4
        model = torch.nn.Identity()

        def to(self, device):
            return self

        def __call__(self, image):
            return torch.zeros_like(image).repeat_interleave(4, -1).repeat_interleave(4, -2) + 0.25

    result, _ = upscale(noisy(64, 48), 128, denoise="0", upscale_model=Model())
    assert result.shape == (1, 128, 96, 3)
    assert (result - 0.25).abs().max() < 1 / 255


def test_tiles_leave_no_borders_and_the_same_picture(modules, vae):  # noqa: F811
    """Steps across former borders of tiles are as those elsewhere, in latents and in pictures."""
    image = noisy(640, 640)
    with torch.inference_mode():
        whole = modules.pixels.encode(vae, image, 0)
        latent = modules.pixels.encode(vae, image, 256)
        torch.testing.assert_close(latent, whole, atol=1e-4, rtol=1e-4)
        plain, tiled = (modules.pixels.decode(vae, whole, tile) for tile in (0, 256))
    assert (tiled - plain).abs().mean() < 2e-3
    borders = [at for start in range(192, 640, 192) for at in (start, start + 64)]
    for axis in (1, 2):
        steps = tiled.diff(dim=axis).abs().mean(dim=[d for d in range(4) if d != axis])
        phases = [steps[phase::8] for phase in range(8)]  # the codec itself has a grid of 8
        for at in borders:
            for before in (at - 1, at):
                if before < len(steps):
                    usual = phases[before % 8]
                    assert steps[before] < usual.mean() + 4 * usual.std() + 1e-4


def autocorrelation(image):
    """Return the normalised autocorrelation of the luminance, ``[H, W]``; 1 at no shift."""
    grey = image.mean(dim=-1)[0]
    spectrum = torch.fft.fft2(grey - grey.mean())
    power = torch.fft.ifft2(spectrum.abs().pow(2)).real
    return power / power[0, 0]


def repeats(image, parent):
    """Return how much more alike two places far from each other are than in the small picture."""
    more = autocorrelation(at_size_of(image, parent)) - autocorrelation(parent)
    near = 32  # pixels, of 256
    for rows in (slice(None, near), slice(-near, None)):
        for columns in (slice(None, near), slice(-near, None)):
            more[rows, columns] = 0
    return more.max()


def at_size_of(image, parent):
    """Return means over areas."""
    return low_frequencies(image, parent.shape[1:3]).movedim(1, -1)


def test_guidance_keeps_a_picture_from_repeating_itself(upscale, demo, vae):  # noqa: F811
    """A painted picture, at twice the size. Measured: 0.097 and 0.038; 0.118 and 0.078."""
    import comfy.sample

    with torch.inference_mode():
        latent = torch.zeros(1, 16, 32, 32)
        noise = comfy.sample.prepare_noise(latent, 42)
        sampling = (8, 1.0, "euler", "simple", demo.prompt, demo.prompt, latent)
        parent = vae.decode(comfy.sample.sample(demo.model, noise, *sampling, disable_pbar=True))

    def measured(strength):
        result, _ = upscale(
            parent, 512, denoise="0.7", steps=10, trained_size=256, guidance_strength=strength
        )
        away = (at_size_of(result, parent) - parent).pow(2).mean().sqrt()
        return repeats(result, parent), away

    free, guided = measured(0.0), measured(1.0)
    assert guided[0] < min(0.06, 0.6 * free[0])
    assert guided[1] < 0.8 * free[1]


SENTENCES = {
    "nothing": (dict(image=None), r"needs either an image or a latent, got neither\."),
    "both": (dict(latent={"samples": torch.zeros(1, 16, 8, 8)}), "got both. Connect one of them"),
    "too small": (dict(size=64), r"at least the picture's longer side, 128, got 64\. Set a larger"),
    "denoise": (dict(denoise="much"), r'denoise must be numbers .* "0\.7, 0\.5", got "much"'),
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
def test_numbers_are_read_as_they_are_written(pack, values, between):
    upscale = sys.modules[f"{pack.__name__}.clear_attention.comfyui.upscale"]
    assert upscale.read_numbers("denoise", between.join(map(str, values)), "1") == values
