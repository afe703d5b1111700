"""Whole distillations through the host: data, a few steps, a file, and the same picture from it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from clear_attention.distill.config import Optimiser, StudentConfig
from clear_attention.distill.data.shards import ShardFolder
from clear_attention.weights import checkpoint, low_rank

from ..distil_fixtures import WIDTHS, WordsCLIP, config, samples, student_of, unrehearsed

PROMPTS = ["one two three", "four five six seven eight nine", "ten"]
STUDENTS = {
    "whole": StudentConfig(radius=2),
    "pooled": StudentConfig(radius=2, pool_factor=2),
    "low rank": StudentConfig(radius=2, rank=3),
    "radii": StudentConfig(radius=2, pool_factor=2),
    "pooled low rank": StudentConfig(radius=2, pool_factor=2, rank=3),
}
SIGMA = torch.tensor([0.3, 0.8])


def form(student, name):
    """Return a student; the one that is to have radii gets those of blocks that the model has."""
    radii = "joint 0: 4, joint 1: 1" if name == "3.5-medium" else "double 0: 4, single 0: 1"
    return dataclasses.replace(STUDENTS[student], radii=radii if student == "radii" else "")


@pytest.fixture
def files(sd3_folders, pack, tmp_path, monkeypatch):
    """The folder models/clear of this test."""
    import folder_paths

    (tmp_path / "clear").mkdir()
    entry = ([str(tmp_path / "clear")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clear", entry)
    return tmp_path / "clear"


@pytest.fixture
def distil(host, monkeypatch):
    """The module that distils, for what is neither about what it tells ahead nor about figures."""
    from clear_attention.comfyui.distill import run

    return unrehearsed(run, monkeypatch)


@pytest.fixture
def distil_as_it_is(host):
    from clear_attention.comfyui.distill import run

    return run


def distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("name", WIDTHS)
def test_a_file_computes_what_the_attached_student_does(name, student, teacher, files, run):
    from clear_attention.comfyui.distill.denoiser import HostDenoiser
    from clear_attention.comfyui.weights.loader import load_onto

    denoiser, given = HostDenoiser(teacher(name)), samples(name)
    student = form(student, name)
    task = student_of(denoiser, name, student)
    latent = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(7))
    local = task.local
    assert bool(local.radii) is bool(student.radii)
    with torch.no_grad(), task.student.attached(denoiser.network):
        attached = denoiser.velocity(latent, SIGMA, given, guidance=3.5, local=local)
    facts = dict(radius=2, radii=task.radii, pool_factor=student.pool_factor)
    if student.rank:
        low_rank.save(files / "f.safetensors", task.student.low_rank(torch.float32), **facts)
    else:
        tensors = task.student.published(denoiser.network.state_dict(), torch.float32)
        checkpoint.save(files / "f.safetensors", tensors, **facts)
    extra = {} if name == "3.5-medium" else {"guidance": torch.tensor([3.5])}
    model = load_onto(teacher(name), "f.safetensors")
    loaded = run(model, latent, SIGMA, given.context, y=given.pooled, **extra)
    torch.testing.assert_close(loaded, attached, rtol=0, atol=1e-5 * float(attached.abs().max()))


@pytest.mark.parametrize("student", ["radii", "pooled low rank"])
@pytest.mark.parametrize("name", ["b", "3.5-medium"])
def test_a_run_writes_a_file_that_paints_the_last_pictures_of_the_student(
    name, student, teacher, files, distil_as_it_is, tmp_path
):
    from clear_attention.comfyui.distill.data.sampling import Prompt
    from clear_attention.comfyui.weights.loader import load_onto

    settings = config(tmp_path, name, student=form(student, name))
    pictures = []
    watcher = distil_as_it_is.Watcher(
        pictures=lambda step, *latents: pictures.append((step, *latents))
    )
    clip = WordsCLIP(WIDTHS[name])
    model = teacher(name)
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    with torch.inference_mode():
        assert distil_as_it_is.distil(model, clip, settings, PROMPTS, watcher)
    assert all(torch.equal(t, before[key]) for key, t in model.model.state_dict().items())
    assert (settings.folder / "losses.png").stat().st_size > 1000
    page = (settings.folder / "index.html").read_text(encoding="utf-8")
    assert f"Update {settings.training.steps} of {settings.training.steps}." in page
    assert 'src="losses.png?' in page
    ((step, of_teacher, of_student),) = pictures
    assert step == settings.training.steps
    held_out = ShardFolder(settings.data_folder / "held_out")
    data = held_out.buckets()[0].load(range(2))
    prompts = [Prompt(c[None], p[None]) for c, p in zip(data.context, data.pooled, strict=True)]
    painter = distil_as_it_is.painter_of(settings, clip)
    with torch.inference_mode():
        loaded = load_onto(teacher(name), settings.output.name)
        again = painter.paint(loaded, prompts, data.seed.tolist(), (64, 64))
    # bfloat16 keeps eight bits: of each weight in the file, and of the text in the data.
    assert distance(again, of_student) < 0.01 < distance(of_student, of_teacher)
    assert distance(of_teacher, data.latent.float()) < 0.01


def test_an_interrupted_run_goes_on_without_painting_again(teacher, files, distil, tmp_path):
    import comfy.model_management as management

    settings, clip = config(tmp_path, "b"), WordsCLIP(WIDTHS["b"])
    painted = []

    def stop_after(what, number):
        def progress(said, done, of):
            painted.append((said, done))
            if said == what and done == number:
                management.interrupt_current_processing(True)

        return distil.Watcher(progress=progress)

    model = teacher("b")
    with torch.inference_mode():
        assert not distil.distil(
            model, clip, settings, PROMPTS, stop_after("painting train data", 1)
        )
        assert len(ShardFolder(settings.data_folder / "train")) == 1
        management.interrupt_current_processing(False)
        assert not distil.distil(model, clip, settings, PROMPTS, stop_after("training", 2))
        management.interrupt_current_processing(False)
        assert [path.name for path in settings.folder.glob("state-*")] == [
            "state-0000002.safetensors"
        ]
        encoded = clip.encoded
        painted.clear()
        assert distil.distil(model, clip, settings, PROMPTS, stop_after("", 0))
    assert clip.encoded == encoded
    assert painted == [
        ("painting train data", 3),
        ("painting held_out data", 2),
        ("training", 3),
        ("training", 4),
    ]
    data = ShardFolder(settings.data_folder / "train")
    assert data.seeds() == {0, 1, 2}
    # One shard by the interruption, and texts of 4 and 6 tokens do not mix.
    assert sorted((shard.samples, shard.text_tokens) for shard in data.shards) == [
        (1, 4),
        (1, 4),
        (1, 6),
    ]


class Killed(BaseException):
    """Ends a run as a kill does: nobody handles it."""


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_is_killed_leaves_a_file_that_loads(at, teacher, files, distil, tmp_path, run):
    from clear_attention.comfyui.distill.student_file import best_of
    from clear_attention.comfyui.weights.loader import load_onto

    def progress(what, done, of):
        if (what, done) == ("training", at):
            raise Killed

    every_two = dataclasses.replace(config(tmp_path, "b").training, save_every=2, validate_every=2)
    settings = config(tmp_path, "b", training=every_two)
    with pytest.raises(Killed), torch.inference_mode():
        distil.distil(
            teacher("b"), WordsCLIP(WIDTHS["b"]), settings, PROMPTS, distil.Watcher(progress)
        )
    latent = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(7))
    given, extra = samples("b"), {"guidance": torch.tensor([3.5])}
    rest = (latent, SIGMA[:1], given.context[:1])

    def velocity(name):
        return run(load_onto(teacher("b"), name), *rest, y=given.pooled[:1], **extra)

    untrained = run(
        with_window(teacher("b"), settings.student.radius), *rest, y=given.pooled[:1], **extra
    )
    found = distance(velocity(settings.output.name), untrained)
    best = best_of(settings.output)
    if at == 1:  # before the first state: the teacher behind its window, in bfloat16
        assert found < 0.01 and not best.exists()
    else:
        assert distance(velocity(best.name), velocity(settings.output.name)) == 0
        assert found > 1e-4
    assert not list(settings.output.parent.glob("*.part"))


@pytest.mark.parametrize("averaged", [False, True])
def test_any_state_becomes_a_file(averaged, teacher, files, distil, tmp_path):
    from safetensors.torch import load_file

    from clear_attention.comfyui.distill.student_file import export

    every = dataclasses.replace(
        config(tmp_path, "b").training, save_every=1, keep_states=9, ema_decay=0.5 * averaged
    )
    settings = config(tmp_path, "b", training=every)
    with torch.inference_mode():
        assert distil.distil(
            teacher("b"), WordsCLIP(WIDTHS["b"]), settings, PROMPTS, distil.Watcher()
        )
        last = export(teacher("b"), settings, Path(f"state-{every.steps:07}.safetensors"))
        first = export(teacher("b"), settings, settings.folder / "state-0000001.safetensors")
        assert last.name == f"mine_step_{every.steps}.safetensors"
        of_run = load_file(settings.output)
        assert all(torch.equal(of_run[name], t) for name, t in load_file(last).items())
        assert any(not torch.equal(of_run[name], t) for name, t in load_file(first).items())
        with pytest.raises(ValueError, match=r"student\.radius was 2 and is now 3"):
            wider = dataclasses.replace(settings, student=StudentConfig(radius=3))
            export(teacher("b"), wider, Path("state-0000001.safetensors"))
        with pytest.raises(ValueError, match=r"mine\.safetensors must be a state of the run"):
            export(teacher("b"), settings, settings.output)
        with pytest.raises(
            ValueError, match=r"must be a state of the run, which has state-0000001"
        ):
            export(teacher("b"), settings, Path("state-7.safetensors"))


def with_window(model, radius):
    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings

    return with_window(model, WindowSettings(radius))


def test_an_update_that_the_host_breaks_off_does_not_count(teacher, files, distil, tmp_path):
    import comfy.model_management as management

    def progress(what, done, of):
        if (what, done) == ("training", 2):
            management.interrupt_current_processing(True)

    watcher = distil.Watcher(progress=progress, should_stop=lambda: False)
    model, settings, clip = teacher("b"), config(tmp_path, "b"), WordsCLIP(WIDTHS["b"])
    with pytest.raises(management.InterruptProcessingException), torch.inference_mode():
        distil.distil(model, clip, settings, PROMPTS, watcher)
    (state,) = settings.folder.glob("state-*")
    assert state.name == "state-0000002.safetensors"
    assert not any(module._forward_hooks for module in model.model.modules())


def test_a_model_that_the_host_unloads_for_pictures_is_loaded_again(
    teacher, files, distil, tmp_path
):
    import comfy.model_management as management

    def trained(name, pictures):
        model = patched(teacher("b"))
        training = dataclasses.replace(config(tmp_path, "b").training, validate_every=2)
        settings = config(tmp_path / name, "b", training=training)
        distil.distil(
            model, WordsCLIP(64), settings, PROMPTS, distil.Watcher(pictures=lambda *_: pictures())
        )
        return load_file(settings.folder / "state-0000004.safetensors")

    unloaded = trained("unloaded", management.unload_all_models)
    kept = trained("kept", lambda: None)
    assert all(torch.equal(tensor, unloaded[key]) for key, tensor in kept.items())


def test_data_of_other_prompts_is_refused_and_a_moved_file_is_not(teacher, files, distil, tmp_path):
    settings, clip = config(tmp_path, "b"), WordsCLIP(WIDTHS["b"])
    distil.distil(teacher("b"), clip, settings, PROMPTS, distil.Watcher())
    moved = dataclasses.replace(settings.generation, prompts=tmp_path / "elsewhere.txt")
    again = dataclasses.replace(settings, generation=moved)
    assert distil.distil(teacher("b"), clip, again, PROMPTS, distil.Watcher())
    with pytest.raises(ValueError, match=r"made with other settings: prompts was '\w+' and"):
        distil.distil(teacher("b"), clip, settings, ["other", *PROMPTS], distil.Watcher())


def patched(model, by=0.05):
    """Put a change of one weight onto a clone of a model."""
    model, key = model.clone(), "diffusion_model.single_blocks.1.linear1.weight"
    model.add_patches({key: (torch.full(model.model_state_dict()[key].shape, by),)})
    return model


def test_a_run_is_not_continued_with_another_teacher(teacher, files, distil, tmp_path):
    settings, clip = config(tmp_path, "b"), WordsCLIP(WIDTHS["b"])
    assert distil.distil(teacher("b"), clip, settings, PROMPTS, distil.Watcher())
    before, encoded = settings.output.read_bytes(), clip.encoded
    another = patched(teacher("b"))
    with pytest.raises(ValueError, match=r"made with other settings: teacher was '\w+' and"):
        distil.distil(another, clip, settings, PROMPTS, distil.Watcher())
    with pytest.raises(ValueError, match="was painted by another model"):
        distil.distil(another, clip, settings, (), distil.Watcher())
    elsewhere = dataclasses.replace(settings, data=tmp_path / "data of another")
    with pytest.raises(ValueError, match=r"state-0000004\.safetensors .* teacher was '\w+' and is"):
        distil.distil(another, clip, elsewhere, PROMPTS, distil.Watcher())
    assert settings.output.read_bytes() == before
    assert clip.encoded > encoded  # of the other folder


def test_a_run_with_another_radius_writes_no_file(teacher, files, distil, tmp_path):
    settings, clip = config(tmp_path, "b"), WordsCLIP(WIDTHS["b"])
    assert distil.distil(teacher("b"), clip, settings, PROMPTS, distil.Watcher())
    before = settings.output.read_bytes()
    wider = dataclasses.replace(settings, student=StudentConfig(radius=3))
    with pytest.raises(ValueError, match=r"student\.radius was 2 and is now 3\. Set it back"):
        distil.distil(teacher("b"), clip, wider, PROMPTS, distil.Watcher())
    assert settings.output.read_bytes() == before


@pytest.mark.parametrize("name", ["a", "b", "3.5-medium"])
def test_a_teacher_is_known_again_however_it_is_loaded(name, teacher, nodes):
    import comfy.model_management as management

    from clear_attention.comfyui.distill.teacher import fingerprint_of

    def load(model):
        management.load_models_gpu([model], force_full_load=True)

    plain = teacher(name)
    known = fingerprint_of(plain)
    assert fingerprint_of(teacher(name)) == known
    key = next(key for key in plain.model_state_dict() if key.endswith("proj.weight"))
    weight = plain.model_state_dict()[key]
    changed = plain.clone()
    changed.add_patches({key: (torch.full(weight.shape, 0.05),)}, 0.5)
    other = fingerprint_of(changed)
    load(changed)
    assert not torch.equal(changed.model_state_dict()[key], weight) or changed.backup
    assert fingerprint_of(changed) == other
    assert fingerprint_of(plain) == known
    management.unload_all_models()
    assert fingerprint_of(plain) == known
    different = [known, other]
    for strength, by in ((0.25, 0.05), (0.5, 0.06)):
        another = plain.clone()
        another.add_patches({key: (torch.full(weight.shape, by),)}, strength)
        different.append(fingerprint_of(another))
    noisier = plain.clone()
    sampling = plain.get_model_object("model_sampling")
    noisier.add_object_patch("model_sampling", type(sampling)(plain.model.model_config))
    noisier.get_model_object("model_sampling").set_parameters(shift=9.0)
    different.append(fingerprint_of(noisier))
    with torch.inference_mode(False):
        weight.view(-1)[-1] += 0.5
    different.append(fingerprint_of(plain))
    assert len(set(different)) == len(different)


def test_mistakes_are_found_before_anything_is_painted(
    teacher, nodes, files, distil, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    clip = WordsCLIP(WIDTHS["b"])
    local = nodes.CLEARAttention(teacher("b"), 4)
    wrong = dataclasses.replace(config(tmp_path, "b").loss, attention_blocks="double 7")
    for model, settings, sentence in (
        (local, config(tmp_path, "b"), "has a CLEAR window already"),
        (
            teacher("b"),
            config(tmp_path, "b", loss=wrong),
            r"must be blocks of .*, got double 7",
        ),
        (teacher("b"), config(tmp_path, "b", optimiser=Optimiser()), "needs prodigyopt"),
    ):
        with pytest.raises((ValueError, ImportError), match=sentence):
            distil.distil(model, clip, settings, PROMPTS, distil.Watcher())
    assert clip.encoded == 0


def test_a_quantised_teacher_is_distilled_at_low_rank_only(
    teacher, flux_model, files, distil, tmp_path
):
    quantised = flux_model("b", torch.float8_e4m3fn)
    clip = WordsCLIP(WIDTHS["b"])
    settings = config(tmp_path, "b", output=files / "mine.safetensors")
    with pytest.raises(ValueError, match=r"got float8_e4m3fn in .* or set a rank"):
        distil.distil(quantised, clip, settings, PROMPTS, distil.Watcher())
    assert clip.encoded == 0
    before = {key: t.clone() for key, t in quantised.model.state_dict().items()}
    thin = dataclasses.replace(settings, student=STUDENTS["low rank"])
    assert distil.distil(quantised, clip, thin, PROMPTS, distil.Watcher())
    assert checkpoint.read(settings.output).rank == 3
    ups = [t for name, t in load_file(settings.output).items() if name.endswith("lora_B.weight")]
    assert all(float(up.abs().max()) > 0 for up in ups)
    for key, tensor in quantised.model.state_dict().items():
        assert torch.equal(tensor.view(torch.uint8), before[key].view(torch.uint8)), key


def test_guidance_with_a_negative_prompt_paints_other_data(teacher, distil, tmp_path):
    plain, guided = (
        config(
            tmp_path, "b", generation=dataclasses.replace(config(tmp_path, "b").generation, cfg=cfg)
        )
        for cfg in (1.0, 4.0)
    )
    clip = WordsCLIP(WIDTHS["b"])
    from clear_attention.comfyui.distill.data.sampling import encode

    pictures = [
        distil.painter_of(settings, clip).paint(teacher("b"), [encode(clip, "a")], [1], (64, 64))
        for settings in (plain, guided)
    ]
    assert not torch.allclose(*pictures, rtol=0.1)


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "bf16")])
def test_the_node_computes_in_what_is_fast_on_the_device(product, device, precision):
    model = SimpleNamespace(load_device=torch.device(device))
    assert product("comfyui.distill.node").precision_of(model) == precision


def test_it_is_said_before_anything_is_painted(teacher, files, distil_as_it_is, tmp_path):
    said = []
    watcher = distil_as_it_is.Watcher(
        progress=lambda what, done, of: said.append(what), message=lambda text: said.append(text)
    )
    with torch.inference_mode():
        assert distil_as_it_is.distil(
            teacher("b"), WordsCLIP(WIDTHS["b"]), config(tmp_path, "b"), PROMPTS, watcher
        )
    assert said[0].startswith("rehearsing an update")
    assert said[1].startswith("this run will take at most about ")  # four updates are few
    assert said[2] == "painting train data"
    assert "the smallest held-out error was" in said[-1]
    assert said[-1].endswith("mine_best.safetensors")
