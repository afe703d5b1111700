"""What a run will take, said before the first picture: each count is that of the run itself."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from clear_attention.distill.ahead.duration import Pass
from clear_attention.distill.config import Pictures

from ..distil_fixtures import POOLED, WIDTHS, WordsCLIP, config

PROMPTS = ["one two three four five six", "a b c"]
ONE = Pass(teacher=1.0, student=1e3, update=1e6, step=1e9)
"""Seconds whose sums say of which kind how many were counted."""
NAMES = ["b", "3.5-medium"]


@pytest.fixture
def ahead(host, monkeypatch):
    """The module, on a machine where a teacher's way takes a second."""
    from clear_attention.comfyui.distill import ahead

    monkeypatch.setattr(ahead, "rehearsed", lambda *args, **kwargs: ONE)
    return ahead


def changed(settings, **changes):
    """Change what is painted, or how it is trained."""
    fields = {field.name for field in dataclasses.fields(settings.generation)}
    painted = {name: changes.pop(name) for name in list(changes) if name in fields}
    return dataclasses.replace(
        settings,
        generation=dataclasses.replace(settings.generation, **painted),
        training=dataclasses.replace(settings.training, **changes),
    )


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_makes_as_many_passes_as_are_told(name, cfg, ahead, teacher, tmp_path, monkeypatch):
    from clear_attention.comfyui.distill import run
    from clear_attention.comfyui.distill.denoiser import HostDenoiser
    from clear_attention.distill.updates.gradients import Gradients

    settings = changed(config(tmp_path, name), cfg=cfg, validate_every=3)
    model, clip = teacher(name), WordsCLIP(WIDTHS[name])
    told = ahead.look_ahead(model, clip, settings, PROMPTS, shows=True, processes=1).duration
    seen: Counter[str] = Counter()
    kind = ["painting"]
    network = model.model.diffusion_model

    def count(module, args):
        back = torch.is_grad_enabled() and kind[0] == "training"
        seen["update" if back else kind[0]] += len(args[0])

    def during(what, function):
        def inner(*args, **kwargs):
            before, kind[0] = kind[0], what
            try:
                return function(*args, **kwargs)
            finally:
                kind[0] = before

        return inner

    monkeypatch.setattr(Gradients, "add", during("training", Gradients.add))
    monkeypatch.setattr(run.Validation, "show", during("pictures", run.Validation.show))
    monkeypatch.setattr(run, "look_ahead", lambda *args, **kwargs: "")
    monkeypatch.setattr(HostDenoiser, "velocity", during_validation(kind, HostDenoiser.velocity))
    handle = network.register_forward_pre_hook(count)
    with torch.inference_mode():
        run.distil(model, clip, settings, PROMPTS, run.Watcher(pictures=lambda *args: None))
    handle.remove()
    # Updates: a picture's way through both. Validations, and their pictures: as often through each.
    assert told.painting == seen["painting"]
    updates = settings.training.steps
    assert told.training == updates * ONE.step + seen["update"] * ONE.update
    assert seen["training"] == seen["update"] == updates * settings.training.batch
    both = seen["validation"] + seen["pictures"]
    assert told.validation == both / 2 * (ONE.teacher + ONE.student)
    assert min(seen.values()) > 0


def during_validation(kind, velocity):
    """Mark the calls of a validation: those outside of updates, painting and pictures."""

    def inner(*args, **kwargs):
        before = kind[0]
        kind[0] = "validation" if before == "painting" else before
        try:
            return velocity(*args, **kwargs)
        finally:
            kind[0] = before

    return inner


@pytest.mark.parametrize("name", NAMES)
def test_the_disk_is_counted_from_the_runs_own_size_text_and_data(name, ahead, teacher, tmp_path):
    settings, clip = (
        changed(config(tmp_path, name), sizes_px=((512, 512),)),
        WordsCLIP(WIDTHS[name]),
    )
    found = ahead.look_ahead(teacher(name), clip, settings, PROMPTS, shows=False, processes=1)
    text = max(4, len(PROMPTS[0].split()))
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


def test_sizes_count_as_often_as_they_are_painted(host, teacher, tmp_path):
    from clear_attention.comfyui.distill import rehearsal
    from clear_attention.comfyui.distill.data.sampling import encode

    sizes = ((64, 64), (64, 128), (128, 128))
    settings = changed(config(tmp_path, "b"), sizes_px=sizes, samples=7, shard=3)
    text = encode(WordsCLIP(WIDTHS["b"]), PROMPTS[0])
    found = rehearsal.painted(teacher("b"), settings, text)
    shapes = {tuple(each.sample.latent.shape[-2:]): each.count for each in found}
    assert shapes == {(8, 8): 3, (8, 16): 3, (16, 16): 1}
    training = dataclasses.replace(settings.training, batch_tokens=64)  # tokens of 2 x 2
    assert [each.of_update(training) for each in found] == [4, 2, 1]
    assert rehearsal.mean_batch(found, training) == 7 / (3 / 4 + 3 / 2 + 1 / 1)
    assert rehearsal.mean_batch(found, settings.training) == settings.training.batch
    assert [each.at_once(training, 2) for each in found] == [2, 1, 1]
    layout = found[1].layout(teacher("b"))
    assert (layout.text, layout.height, layout.width) == (6, 4, 8)


def test_a_rehearsal_takes_updates_of_every_size_and_leaves_the_teacher_as_it_is(
    host, teacher, tmp_path, monkeypatch
):
    from clear_attention.comfyui.distill import rehearsal
    from clear_attention.comfyui.distill.data.sampling import encode

    settings = changed(config(tmp_path, "b"), sizes_px=((64, 64), (64, 128)), samples=4, shard=3)
    model, taken = teacher("b"), []

    def rehearse(task, batch, optimiser, should_stop, **given):
        taken.append((batch.samples.latent.shape, task.student.rank, optimiser))
        return measured(task, batch, optimiser, should_stop, **given)

    measured = rehearsal.rehearse
    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    with torch.inference_mode():
        text = encode(WordsCLIP(WIDTHS["b"]), PROMPTS[0])
        pictures = rehearsal.painted(model, settings, text)
        for shards in (False, True):
            one = rehearsal.rehearsed(model, settings, pictures, processes=1, shards=shards)
            assert 0 < one.teacher < one.update and 0 < one.student < one.update
    shapes = [torch.Size((2, 16, 8, 16)), torch.Size((2, 16, 8, 8))]  # the largest first
    assert taken == [
        *((shape, 0, settings.optimiser) for shape in shapes),
        *((shape, rehearsal.STANDING_IN, None) for shape in shapes),
    ]
    assert all(torch.equal(t, before[key]) for key, t in model.model.state_dict().items())


def test_three_of_many_sizes_are_rehearsed_and_one_where_little_is_left(
    host, teacher, tmp_path, monkeypatch
):
    from clear_attention.comfyui.distill import rehearsal
    from clear_attention.comfyui.distill.data.sampling import encode

    sizes = tuple((64, 64 * n) for n in (3, 1, 5, 2, 4))
    settings = changed(config(tmp_path, "b"), sizes_px=sizes, samples=5, shard=1)
    model, taken = teacher("b"), []

    def rehearse(task, batch, *given, left, **_):
        taken.append(batch.samples.latent.shape[-1] // 8)
        one = Pass(*(4 * [float(taken[-1])]))
        return dataclasses.replace(one, at_most=left(one) < 7)

    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    pictures = rehearsal.painted(model, settings, encode(WordsCLIP(WIDTHS["b"]), PROMPTS[0]))
    given = dict(processes=1, shards=False)
    one = rehearsal.rehearsed(model, settings, pictures, left=lambda one: 3 * 7.0, **given)
    assert taken == [5, 3, 1] and one == Pass(3.0, 3.0, 3.0, 3.0)
    one = rehearsal.rehearsed(model, settings, pictures, left=lambda one: 3 * 6.0, **given)
    assert taken == [5, 3, 1, 5] and one == Pass(5.0, 5.0, 5.0, 5.0, at_most=True)


def test_nothing_is_rehearsed_where_nothing_is_left_to_do(ahead, teacher, tmp_path, monkeypatch):
    from clear_attention.comfyui.distill import run

    settings = config(tmp_path, "b")
    model, clip = teacher("b"), WordsCLIP(WIDTHS["b"])
    monkeypatch.setattr(run, "look_ahead", lambda *args, **kwargs: "")
    with torch.inference_mode():
        run.distil(model, clip, settings, PROMPTS, run.Watcher())
    rehearsals = []
    monkeypatch.setattr(ahead, "rehearsed", lambda *args, **kwargs: rehearsals.append(1) or ONE)
    given = dict(shows=True, processes=1)
    found = ahead.look_ahead(model, clip, settings, PROMPTS, **given)
    assert (found.duration.total, rehearsals) == (0, [])
    assert found.disk.total == 0 and "rehearsal" not in str(found)
    longer = dataclasses.replace(settings, training=dataclasses.replace(settings.training, steps=7))
    found = ahead.look_ahead(model, None, longer, (), **given)
    assert rehearsals == [1]
    assert found.duration.training == 3 * (2 * ONE.update + ONE.step)
    assert found.duration.painting == 0


def test_a_folder_of_pictures_counts_as_square_ones(ahead, teacher, tmp_path, monkeypatch):
    settings = dataclasses.replace(
        config(tmp_path, "b"), pictures=Pictures(tmp_path, area_px=128 * 128)
    )
    (tmp_path / "one.png").touch()
    (tmp_path / "one.txt").write_text("a cat", encoding="utf-8")
    found = []

    def rehearsed(model, config, pictures, should_stop, **kwargs):
        found.extend(pictures)
        return ONE

    monkeypatch.setattr(ahead, "rehearsed", rehearsed)
    given = dict(shows=True, processes=1)
    told = ahead.look_ahead(teacher("b"), WordsCLIP(WIDTHS["b"]), settings, (), **given).duration
    assert [each.sample.latent.shape[-2:] for each in found] == [(16, 16)]  # 128 x 128 pixels
    assert told.training == 4 * (2 * ONE.update + ONE.step) and told.painting == 0
