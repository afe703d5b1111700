"""Finished stages of a cascade are kept: what runs again, and what an interruption leaves."""

from __future__ import annotations

import pytest
import torch

from ..upscale_fixtures import noisy, ran


def test_a_changed_last_stage_is_the_only_one_that_runs_again(upscale, stages, upscaling, caplog):
    image = noisy(32, 32)
    upscale(image, 128, denoise="0.5, 0.5")
    assert ran(upscaling()) == ([1, 2], [])
    caplog.clear()
    changed, latent = upscale(image, 128, denoise="0.5, 0.75")
    assert ran(upscaling()) == ([2], [1])
    stages._stages.clear()
    caplog.clear()
    again, latent_again = upscale(image, 128, denoise="0.5, 0.75")
    assert ran(upscaling()) == ([1, 2], [])
    assert torch.equal(changed, again)
    assert torch.equal(latent["samples"], latent_again["samples"])


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=4), dict(cfg=2.0), dict(steps=5), dict(scheduler="beta"), dict(denoise="0.75"),
        dict(sampler_name="heun"), dict(guidance_strength=0.5), dict(vae_tile=128),
        dict(trained_size=32), "image", "model", "positive", "negative", "vae", "prompt's numbers",
    ],
    ids=str,
)  # fmt: skip
def test_whatever_a_stage_depends_on_makes_it_run_again(
    upscale, demo, vae, upscaling, caplog, change
):  # fmt: skip
    import copy

    image = noisy(32, 32)
    upscale(image, 64)
    caplog.clear()
    upscale(image.clone(), 64)
    assert ran(upscaling()) == ([], [1]), "an equal picture is the same"
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
    upscale(**{"image": image, "size": 64, **changes})
    assert ran(upscaling()) == ([1], [])


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


def test_an_interruption_keeps_the_finished_stages_and_says_how_to_get_them(
    upscale, monkeypatch, upscaling, caplog, stages
):
    import comfy.model_management as management
    import comfy.utils

    def stop(bar, value, *_, **__):
        if value == 12:  # within the second stage
            management.interrupt_current_processing()

    image = noisy(32, 32)
    with monkeypatch.context() as patch:
        patch.setattr(comfy.utils.ProgressBar, "update_absolute", stop)
        with pytest.raises(management.InterruptProcessingException):
            upscale(image, 128)
    assert upscaling()[-1] == (
        "stopped: queue again to go on; size 64 gives the last finished stage at once"
    )
    assert len(stages) == 1
    caplog.clear()
    last, _ = upscale(image, 64)
    assert ran(upscaling()) == ([], [1])
    caplog.clear()
    resumed, _ = upscale(image, 128)
    assert ran(upscaling()) == ([2], [1])
    stages._stages.clear()
    assert torch.equal(upscale(image, 128)[0], resumed)
    assert torch.equal(upscale(image, 64)[0], last)
