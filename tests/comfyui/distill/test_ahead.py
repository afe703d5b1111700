"""What a run will take, said before the first picture."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from clear_attention.distill.config import StudentConfig

from ..distil_fixtures import POOLED, WIDTHS, WordsCLIP, config

PROMPTS = ["one two three four five six", "a b c"]


def large(settings):
    """Let a run paint pictures of 512 x 512 pixels, in which a window saves something."""
    generation = dataclasses.replace(settings.generation, sizes_px=((512, 512),))
    return dataclasses.replace(settings, generation=generation)


@pytest.fixture
def ahead(host, monkeypatch):
    """The module, on a machine where a pair takes a second and nothing else takes any."""
    from clear_attention.comfyui.distill import ahead
    from clear_attention.plan.cost import Rates, WindowRate

    def rates(network, job, machine):
        zero = dict.fromkeys(("linear", "stream", "positions", "heads", "activation", "copy"), 0.0)
        windows = dict.fromkeys(network.windows(job), WindowRate(1.0, "tiled"))
        return Rates(**zero, full=1.0, shared=1.0, device=machine.device, windows=windows)

    monkeypatch.setattr(ahead, "measure", rates)
    return ahead


@pytest.mark.parametrize("name", ["b", "3.5-medium"])
def test_a_run_is_counted_from_its_own_size_text_and_data(name, ahead, teacher, tmp_path):
    settings, model = large(config(tmp_path, name)), teacher(name)
    clip = WordsCLIP(WIDTHS[name])
    given = dict(shows=False, processes=1)
    text = max(4, len(PROMPTS[0].split()))
    found = ahead.look_ahead(model, clip, settings, PROMPTS, **given)
    one = ahead.one_pass(model, settings, text, 0)
    assert one.tokens == 0 and one.full > one.local > 0
    assert found.duration.painting == pytest.approx(5 * 2 * one.full)  # 5 pictures of 2 steps
    update = one.full + one.local + 2.5 * one.local
    batches = settings.training.steps * settings.training.batch
    assert found.duration.training == pytest.approx(batches * update)
    assert found.duration.validation == pytest.approx(2 * (one.full + one.local))
    assert found.disk.data == 2 * (5 * 16 * 64 * 64 + 2 * (text * WIDTHS[name] + POOLED))
    assert "painting" in str(found) and "GB on the disk" in str(found)
    poor = dataclasses.replace(found, free=10)
    assert str(poor).endswith("The disk has 1e-08 GB left: free some, or take another folder.")


def test_a_prompt_is_counted_once_and_what_is_there_not_at_all(ahead, teacher, tmp_path):
    from clear_attention.comfyui.distill.data.missing import Missing, missing_in
    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher

    settings, prompts = config(tmp_path, "b"), ["one", "the second", "third", "last"]
    settings = dataclasses.replace(
        settings, generation=dataclasses.replace(settings.generation, samples=7, shard=1)
    )
    assert missing_in(settings, prompts) == Missing(pictures=9, texts=4)

    class Stopped(Exception):
        pass

    def progress(what, done, of):
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped), torch.inference_mode():
        distil(teacher("b"), WordsCLIP(WIDTHS["b"]), settings, prompts, Watcher(progress))
    # The second picture was painted, and is not on the disk.
    assert missing_in(settings, prompts) == Missing(pictures=8, texts=3)
    with torch.inference_mode():
        distil(teacher("b"), WordsCLIP(WIDTHS["b"]), settings, prompts, Watcher())
    assert missing_in(settings, prompts) == Missing()
    more = dataclasses.replace(settings.generation, samples=9)
    assert missing_in(dataclasses.replace(settings, generation=more), prompts) == Missing(2, 0)


def test_a_radius_per_block_is_counted(ahead, teacher, tmp_path):
    def local(**student):
        settings = large(config(tmp_path, "b", student=StudentConfig(radius=2, **student)))
        return ahead.one_pass(teacher("b"), settings, 4, 0).local

    assert local(radii="single 0: 1") < local() < local(radii="single 0: 3")
