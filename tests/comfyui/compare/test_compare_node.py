"""CLEAR Compare in the real host: what it paints, what it measures, what it refuses."""

from __future__ import annotations

import copy
import os
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from ..controlnet_fixtures import hint_for
from ..families.zoo import ENTRIES
from ..families.zoo_models import conditioning as zoo_conditioning
from ..families.zoo_models import latent as zoo_latent
from ..flux_runs import conditioning
from ..golden import FOLDER

SIZE = (18, 22)  # of a latent: 9 x 11 tokens
GIVEN = dict(seed=5, pictures=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple")


class Looking:
    """Stands in for a CLIP_VISION: mean colours of quarters of a picture."""

    def encode_image(self, image):
        small = torch.nn.functional.adaptive_avg_pool2d(image.movedim(-1, 1), 2)
        return {"image_embeds": small.flatten(1), "last_hidden_state": None}


class Dinov2Model(Looking):
    """Has no projected embedding, as some models of the host."""

    def encode_image(self, image):
        tokens = super().encode_image(image)["image_embeds"][:, None]
        return {"image_embeds": None, "last_hidden_state": tokens}


def empty(batch=1, height=SIZE[0], width=SIZE[1], channels=16):
    return {"samples": torch.zeros(batch, channels, height, width)}


@pytest.fixture
def compare(node_classes):
    """Run the node, and return its sheet and the cells of its table by title and name."""

    def run(model, clear_model, latent=None, **given):
        prompts = dict(positive=conditioning(40, 2), negative=conditioning(56, 3))
        given = dict(model=model, clear_model=clear_model, latent=latent or empty()) | given
        with torch.inference_mode():
            sheet, text = node_classes["CLEARCompare"].execute(**(prompts | GIVEN | given)).args
        return SimpleNamespace(sheet=sheet, text=text, cells=cells_of(text))

    return run


def cells_of(text):
    cells, head = {}, []
    for line in text.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = row
        elif not row[0].startswith("-"):
            cells.setdefault(row[0], {}).update(
                {title: cell for title, cell in zip(head, row, strict=True) if title not in
                 cells.get(row[0], {})}
            )  # fmt: skip
    return cells


def number(cell):
    return float(re.match(r"-?[\d.e+-]+", cell)[0])


@pytest.fixture
def clear_file(host, tmp_path, monkeypatch):
    """A CLEAR file for the narrow FLUX, under a name that says its window."""
    import folder_paths

    file = tmp_path / "clear_local_4_down_4.safetensors"
    shutil.copy(FOLDER / "clear_b_down4.safetensors", file)
    entry = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clear", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return file


@pytest.fixture
def pair(flux_model, nodes):
    """A narrow FLUX, and the same behind a window."""
    model = flux_model("b")
    return model, nodes.CLEARAttention(model, 3)


def test_the_first_row_is_what_ksampler_paints(pair, compare, vae, product, monkeypatch):
    import comfy.sample

    model, local = pair
    looked = []
    eyes = product("comfyui.compare.looks").Eyes
    look = eyes.look
    monkeypatch.setattr(
        eyes, "look", lambda self, latent: looked.append(latent) or look(self, latent)
    )
    compare(model, local, vae=vae, cfg=2.0, steps=3)

    def painted(model, seed):
        latent = empty()["samples"]
        with torch.inference_mode():
            return comfy.sample.sample(
                *(model, comfy.sample.prepare_noise(latent, seed), 3, 2.0, "euler", "simple"),
                *(conditioning(40, 2), conditioning(56, 3), latent),
                disable_pbar=True,
                seed=seed,
            )

    expected = [painted(model, 6), painted(model, 5), painted(local, 5)]
    assert len(looked) == 3
    for found, latent in zip(looked, expected, strict=True):
        assert found.equal(latent)


def test_the_velocity_error_is_that_of_the_models_own_outputs(pair, compare, product, run):
    """At each level by one call of the model, without the host's sampler."""
    predictions, painting = (
        product("comfyui.compare.predictions"),
        product("comfyui.compare.painting"),
    )
    model, local = pair
    task = painting.Task(
        conditioning(40, 2), conditioning(56, 3), empty()["samples"], 2, 1.0, "euler", "simple"
    )
    picture = torch.randn(1, 16, *SIZE, generator=torch.Generator().manual_seed(9))
    noise = task.noise(5)
    ((context, extra),) = task.positive
    found = predictions.velocities(local, task, picture, 5, lambda _: None)
    latent_format = model.get_model_object("latent_format")
    clean = latent_format.process_in(picture)
    for level, velocity in zip((0.9, 0.7, 0.5, 0.3), found, strict=True):
        given = dict(x=level * noise + (1 - level) * clean, timestep=torch.tensor([level]))
        given |= dict(context=context, y=extra["pooled_output"], guidance=torch.tensor([3.5]))
        # Of noise and clean picture, float32: a few roundings of each, over the level.
        torch.testing.assert_close(velocity, run(local, **given), atol=1e-5, rtol=1e-4)
        assert (velocity - run(model, **given)).abs().max() > 1e-3


def test_errors_are_those_of_the_velocities_and_another_seed_is_the_yardstick(
    pair, compare, product, vae
):
    found = compare(*pair, vae=vae)
    own, other = found.cells["clear_model, r = 3"], found.cells["another seed"]
    levels = [number(own[f"noise {level}"]) for level in (0.9, 0.7, 0.5, 0.3)]
    assert number(own["mean"]) == pytest.approx(sum(levels) / 4, abs=1e-4)
    share = 100 * number(own["mean"]) / number(other["mean"])
    assert number(own["of two seeds"]) == pytest.approx(share, rel=0.1)
    assert other["of two seeds"] == "100 %"
    assert 0 < number(own["mean"]) < number(other["mean"])
    assert found.cells["model, full attention"]["pairs of attention"] == "100 %"


def test_a_window_over_the_whole_grid_costs_nothing(flux_model, nodes, compare, vae):
    model = flux_model("b")
    found = compare(model, nodes.CLEARAttention(model, 64), vae=vae)
    own = found.cells["clear_model, r = 64"]
    assert own["mean"] in ("0.0000", "-") or number(own["mean"]) < 1e-8
    assert own["PSNR"] == "equal" or number(own["PSNR"]) > 80
    assert own["pairs of attention"] == "100 %"


@pytest.mark.parametrize("batch", [1, 2])
def test_the_sheet_has_a_row_per_picture(pair, compare, vae, batch):
    one = compare(*pair, latent=empty(batch), vae=vae, pictures=2)
    assert one.sheet.ndim == 4 and one.sheet.shape[-1] == 3
    assert one.sheet.min() >= 0 and one.sheet.max() <= 1
    height = compare(*pair, latent=empty(), vae=vae).sheet.shape[1]
    rows = 2 * batch
    assert abs(one.sheet.shape[1] - rows * height) < rows * 60
    assert f"{rows} pictures of 176 x 144 pixels" in one.text
    assert "seed 5 to 6, the other seed 7" in one.text
    assert " ± " in one.cells["clear_model, r = 3"]["mean"]


@pytest.mark.parametrize("model", [Looking, Dinov2Model])
def test_a_vision_model_adds_its_distance(pair, compare, vae, model):
    found = compare(*pair, vae=vae, clip_vision=SimpleNamespace(
        model=model(), encode_image=model().encode_image))  # fmt: skip
    name = "DINO distance" if model is Dinov2Model else "CLIP distance"
    own = found.cells["clear_model, r = 3"]
    assert 0 < number(own[name]) < 2
    assert name not in compare(*pair, vae=vae).cells["clear_model, r = 3"]


def test_without_a_vae_latents_are_compared_and_the_text_says_so(pair, compare):
    found = compare(*pair, clip_vision=Looking())
    assert "No VAE is connected: pictures are compared as latents" in found.text
    assert "clip_vision had no effect" in found.text
    assert number(found.cells["clear_model, r = 3"]["PSNR"]) > 0
    assert found.sheet.std() > 0.05


@pytest.mark.parametrize("name", ["z_image", "qwen_image", "cosmos_predict2"])
def test_other_architectures_are_compared_too(name, zoo_model, compare, nodes):
    """With weights that were made up: a window changes much, another seed changes all."""
    entry, model = ENTRIES[name], zoo_model(name)
    found = compare(
        model,
        nodes.CLEARAttention(model, 2),
        latent={"samples": torch.zeros_like(zoo_latent(entry))},
        positive=zoo_conditioning(entry, 9),
        negative=zoo_conditioning(entry, 12, seed=3),
        cfg=3.0,
        sweep="64",
    )
    own, other, whole = (
        found.cells[each] for each in ("clear_model, r = 2", "another seed", "r = 64")
    )
    assert 0 < number(own["mean"]) < number(other["mean"])
    assert number(whole["mean"]) < 1e-3 * number(own["mean"])
    assert number(own["pairs of attention"]) < 90 < number(whole["pairs of attention"])
    assert found.sheet.isfinite().all()


def test_a_sweep_adds_columns_and_lines(pair, compare, vae, clear_file):
    narrow = compare(*pair, vae=vae).sheet.shape[2]
    found = compare(
        *pair, vae=vae, sweep="2\n\n 3, double 0-1: 64\nclear_local_4_down_4.safetensors\n"
    )
    names = [
        "clear_model, r = 3",
        "r = 2",
        "r = 3, double 0-1: 64",
        "clear_local_4_down_4.safetensors",
    ]
    assert [name for name in found.cells if name in names] == names
    assert found.sheet.shape[2] > 2 * narrow
    errors = [number(found.cells[name]["mean"]) for name in names[:3]]
    assert errors[1] > errors[0] > errors[2]  # a smaller disc; the same with two blocks in full


def test_a_file_of_the_sweep_that_is_replaced_runs_the_node_again(node_classes, clear_file):
    def key(sweep):
        return node_classes["CLEARCompare"].fingerprint_inputs(sweep=sweep, seed=1)

    before = key(f"8\n {clear_file.name} \n")
    assert before == key(clear_file.name) and before
    os.utime(clear_file, (1, 1))
    assert key(clear_file.name) != before
    assert key("8") == key(None) == ""


def test_a_line_may_be_what_the_probe_gives(flux_model, product, node_classes):
    """Radii alone: blocks that are not named have the radius that nobody asked for."""
    contestants = product("comfyui.compare.contestants")
    radii = "double 0-1: 8, single 0: 32, single 1-2: 5"
    alone, other, based = contestants.swept(
        flux_model("b"), f"{radii}\n{radii}, single 1: 5\n9, {radii}"
    )
    local = product("comfyui.core.patch").settings_of(alone.model).local
    assert (local.radius, len(local.radii), local.radii["single", 0]) == (16, 5, 32)
    assert product("comfyui.core.patch").settings_of(based.model).local.radius == 9
    assert alone.name == "r = 16, double 0-1: 8, single 0: 32, single ..."
    assert len({alone.name, other.name, based.name}) == 3


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("eight", r"Line 2 of sweep, 'eight': it must be a radius, a radius and others per block"),
        ("0", "must be a radius, a radius and others"),
        ("8, double 0", "with a radius of 1 or more behind each colon"),
        ("8, double 77: 4", "which has double 0-1, single 0-2, got double 77"),
        ("gone.safetensors", "must be a file of models/clear, which has"),
        ("4", "Line 2 of sweep, '4', is there already"),
    ],
)
def test_a_line_that_cannot_be_swept_is_named(pair, compare, clear_folder, line, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare(*pair, sweep=f"4\n{line}")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(pictures=17), "pictures must be from 1 to 16, got 17"),
        (dict(pictures=0), "pictures must be from 1 to 16, got 0"),
        (dict(steps=0), "steps must be at least 1"),
        (dict(cfg=float("nan")), "cfg must be a finite number"),
        (dict(sampler_name="oiler"), "sampler_name must be one of"),
        (dict(positive=[]), "positive must be a conditioning with at least one prompt"),
        (dict(latent={"samples": torch.ones(1, 4, 8, 8)}), "must have the 16 channels"),
        (dict(latent={"samples": torch.zeros(1, 16, 0, 8)}), "latent must be pictures"),
        (dict(latent={"samples": torch.ones(1, 16, 2, 8, 8)}), "a single frame, got 2"),
        (dict(vae="video"), "vae must decode latents of the model"),
        (dict(clip_vision=SimpleNamespace(encode_image=lambda _: {})), "clip_vision must return"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_painted(
    pair, compare, vae, changes, sentence, product, monkeypatch
):
    painted = []
    monkeypatch.setattr(product("comfyui.compare.run"), "paint", painted.append)
    if changes.get("vae") == "video":

        def fail(latent):
            raise RuntimeError("expected 4 channels\nand more")

        changes = {"vae": SimpleNamespace(decode=fail, spacial_compression_decode=lambda: 8)}
    with pytest.raises(ValueError, match=sentence) as raised:
        compare(*pair, **({"vae": vae} | changes))
    assert str(raised.value).count("\n") == 0 and str(raised.value).endswith(".")
    assert painted == []


def test_models_of_different_latents_are_refused(pair, compare, flux2_model):
    with pytest.raises(ValueError, match="clear_model must paint the latents of model"):
        compare(pair[0], flux2_model("klein"))


def test_nothing_is_left_of_an_interrupted_run(pair, compare, vae, monkeypatch):
    import comfy.model_management as management

    model, local = pair
    before = [copy.deepcopy(each.model_options) for each in pair]
    weights = {name: each.clone() for name, each in model.model.state_dict().items()}
    expected = compare(model, local, vae=vae).cells["clear_model, r = 3"]["mean"]
    moves = []

    def noted(bar, value, total=None, preview=None):
        moves.append((value, bar.total))
        if len(moves) == 4:
            management.interrupt_current_processing(True)

    import comfy.utils

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", noted)
    with pytest.raises(management.InterruptProcessingException):
        compare(model, local, vae=vae)
    assert len(moves) == 4
    moves.extend([(0, 0)] * 4)
    assert compare(model, local, vae=vae).cells["clear_model, r = 3"]["mean"] == expected
    assert moves[-1][0] == moves[-1][1]  # the bar ends where it should
    for each, options in zip(pair, before, strict=True):
        assert each.model_options.keys() == options.keys()
        assert str(each.model_options) == str(options) or (
            each.model_options["transformer_options"].keys()
            == options["transformer_options"].keys()
        )
    assert all(model.model.state_dict()[name].equal(each) for name, each in weights.items())


def test_pictures_that_failed_are_named_and_are_in_no_mean(pair, compare, vae, nodes):
    model, local = pair
    broken = local.clone()

    def spoil(args):
        return args["denoised"] * float("nan")

    broken.set_model_sampler_post_cfg_function(spoil)
    found = compare(model, broken, vae=vae, pictures=2)
    assert "- clear_model, r = 3, picture 5: not a number" in found.text
    own = found.cells["clear_model, r = 3"]
    assert own["mean"] == own["PSNR"] == "-"
    assert own["pictures"] == "2, 2 failed"
    assert number(found.cells["another seed"]["mean"]) > 0
    assert found.sheet.isfinite().all()


def test_windows_are_named_as_they_are(pair, compare, nodes):
    model, local = pair
    assert "this model has no CLEAR window" in compare(model, model).text
    both = compare(local, local)
    assert "The first model has a CLEAR window itself" in both.text
    assert "both models have the same window" in both.text
    assert both.cells["clear_model, r = 3"]["PSNR"] == "equal"
    radii = compare(local, nodes.CLEARAttention(model, 3, radii="single 0: 5"))
    assert "both models have the same window" not in radii.text
    assert "clear_model, r = 3 and others per block" in radii.cells
    late = compare(model, nodes.CLEARAttention(model, 3, start_percent=0.5), steps=4)
    (name,) = [name for name in late.cells if name.startswith("clear_model")]
    assert name == "clear_model, r = 3, 0.5 to 1"
    always = number(compare(*pair).cells["clear_model, r = 3"]["pairs of attention"])
    assert always < number(late.cells[name]["pairs of attention"]) < 100


def test_controlnets_and_references_of_the_prompt_count(pair, compare, make_control_net):
    from nodes import ControlNetApplyAdvanced

    hint = hint_for("instantx", SIZE).movedim(1, -1)
    positive, negative = ControlNetApplyAdvanced().apply_controlnet(
        *(conditioning(40, 2), conditioning(56, 3), make_control_net("instantx"), hint),
        *(0.8, 0.0, 1.0),
    )
    positive[0][1]["reference_latents"] = [torch.ones(1, 16, 12, 10)]
    plain = compare(*pair, cfg=2.0).cells["clear_model, r = 3"]["mean"]
    held = compare(*pair, cfg=2.0, positive=positive, negative=negative)
    assert number(held.cells["clear_model, r = 3"]["mean"]) > 0
    assert held.cells["clear_model, r = 3"]["mean"] != plain


def test_a_noise_mask_holds(pair, compare, product, monkeypatch):
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., : SIZE[1] // 2] = 1
    kept = torch.randn(1, 16, *SIZE, generator=torch.Generator().manual_seed(3))
    looked = []
    eyes = product("comfyui.compare.looks").Eyes
    look = eyes.look
    monkeypatch.setattr(
        eyes, "look", lambda self, latent: looked.append(latent) or look(self, latent)
    )
    compare(*pair, latent={"samples": kept, "noise_mask": mask})
    for latent in looked:
        right = latent[..., SIZE[1] // 2 + 1 :] - kept[..., SIZE[1] // 2 + 1 :]
        assert right.abs().max() < 1e-4
        assert (latent - kept).abs().max() > 0.1


def test_the_timer_leaves_out_what_is_before_the_first_call(pair, product, monkeypatch):
    import time

    import comfy.sampler_helpers

    painting = product("comfyui.compare.painting")
    task = painting.Task(
        conditioning(40, 2), conditioning(56, 3), empty()["samples"], 1, 1.0, "euler", "simple"
    )
    prepare = comfy.sampler_helpers.prepare_sampling

    def slow(*args, **kwargs):
        time.sleep(0.8)
        return prepare(*args, **kwargs)

    with torch.inference_mode():
        painting.paint(pair[0], task, 1, lambda _: None)
        began = time.perf_counter()
        monkeypatch.setattr(comfy.sampler_helpers, "prepare_sampling", slow)
        seconds = painting.paint(pair[0], task, 1, lambda _: None).seconds
        assert 0 < seconds <= time.perf_counter() - began - 0.8
