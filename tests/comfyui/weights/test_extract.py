"""Extract CLEAR LoRA in the real host: any LoRA loader makes the same weights of its file."""

from __future__ import annotations

import logging
import os
import re
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ..golden import FOLDER
from .test_lora_matrix import scaled_model
from .test_patches import (
    LINEAR1,
    QKV,
    assert_close,
    assert_same_bits,
    fused,
    loras,
    patched_weights,
    plain_weights,
)

FILES = {"a": "clear_local_4.safetensors", "b": "clear_local_4_down_4.safetensors"}
GOLDEN = {"a": ("a-local", "clear_a_local"), "b": ("b-pooled", "clear_b_down4")}
QKV_BIAS = QKV.replace("weight", "bias")


@pytest.fixture
def folders(host, pack, tmp_path, monkeypatch):
    """Folders of this test: models/clear with golden files, models/loras."""
    import folder_paths

    suffixes = {".safetensors"}
    for kind in ("clear", "loras"):
        (tmp_path / kind).mkdir()
        entry = ([str(tmp_path / kind)], suffixes)
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, entry)
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for model, name in FILES.items():
        shutil.copy(FOLDER / f"{GOLDEN[model][1]}.safetensors", tmp_path / "clear" / name)
    return tmp_path


@pytest.fixture
def extract(node_classes, folders):
    """Run the node; return the file's name and the report."""

    def run(model, name, *inputs):
        with torch.inference_mode():
            return node_classes["CLEARExtractLoRA"].execute(model, FILES[name], *inputs).args

    return run


def load_lora(model, name, strength=1.0):
    from nodes import LoraLoaderModelOnly

    loaded, *_ = LoraLoaderModelOnly().load_lora_model_only(
        model, os.path.join("clear", name), strength
    )
    return loaded


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("name", FILES)
def test_at_full_rank_every_loader_gives_the_clear_weights(
    name, strength, extract, flux_model, nodes, folders, caplog
):
    model = flux_model(name)
    base = plain_weights(model)
    lora_name, report = extract(model, name, model.model.diffusion_model.hidden_size)
    assert "lost of what distilling changed: 0.2 %" in report  # two factors in bf16
    target = fused(base, GOLDEN[name][0])
    expected = {k: base[k].double() + strength * (target[k] - base[k].double()) for k in base}
    with caplog.at_level(logging.WARNING):
        theirs = patched_weights(load_lora(model, lora_name, strength))
    ours = patched_weights(nodes.CLEARLoader(model, lora_name, strength))
    assert_same_bits(ours, theirs)
    for key, tensor in ours.items():
        # Each factor is rounded to bf16, and adds half a percent to the change at the most.
        change = (target.get(key, base[key]) - base[key].double()).norm()
        assert (tensor.double() - expected[key]).norm() <= 0.005 * change + 1e-4, key
    assert not torch.equal(ours[QKV_BIAS], base[QKV_BIAS])
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [message for message in warned if "spatial_weight" not in message] == []


def test_the_window_travels_in_the_file(extract, flux_model, nodes, product, folders):
    patch = product("comfyui.core.patch")
    model = flux_model("b")
    lora_name, _ = extract(model, "b", 5, "my name")
    assert lora_name == "my name.safetensors"
    loaded = nodes.CLEARLoader(model, lora_name)
    settings = loaded.model_options["transformer_options"][patch.SETTINGS_KEY]
    assert (settings.local.radius, settings.local.pool_factor) == (4, 4)
    assert len(settings.local.pool_weights) == 5
    with safe_open(folders / "loras" / "clear" / lora_name, "pt") as file:
        assert file.metadata()["clear.rank"] == "5"
        assert file.metadata()["clear.radius"] == "4"
    extract(model, "b", 5, "my name", 9)  # replaced, with another radius
    settings = nodes.CLEARLoader(model, lora_name).model_options["transformer_options"]
    assert settings[patch.SETTINGS_KEY].local.radius == 9


def test_the_report_tells_rank_size_and_error(extract, flux_model, folders):
    model = flux_model("b")
    lora_name, report = extract(model, "b", 16)
    assert lora_name == "clear_local_4_down_4_rank_16.safetensors"
    size = (folders / "loras" / "clear" / lora_name).stat().st_size
    assert f"rank 16, {size / 2**20:.1f} MiB" in report
    kinds = re.findall(r"  (\w+ to_\S+): ([\d.]+) %", report)
    assert len(kinds) == 7
    base, target = plain_weights(model), fused(plain_weights(model), "b-pooled")
    found = patched_weights(load_lora(model, lora_name))
    keys = [
        key
        for key in base
        if key.endswith(("qkv.weight", "img_attn.proj.weight", "linear1.weight"))
    ]
    lost = sum(float((found[k].double() - target[k]).square().sum()) for k in keys)
    change = sum(float((base[k].double() - target[k]).square().sum()) for k in keys)
    assert f"changed: {100 * (lost / change) ** 0.5:.1f} %" in report


def test_loras_on_the_model_take_no_part(extract, flux_model, folders):
    model = flux_model("b")
    file = folders / "loras" / "clear" / extract(model, "b", 4, "x")[0]
    content = load_file(file)
    patched = loras(model)["fused"](model)
    patched.patch_model()
    extract(patched, "b", 4, "x")
    patched.unpatch_model()
    assert_same_bits(load_file(file), content)


def test_an_extracted_lora_suits_a_finetune_and_its_loras(extract, flux_model, nodes, folders):
    model, finetune = flux_model("b"), flux_model("b")
    for tensor in finetune.model.parameters():
        tensor.data.mul_(1.1)
    lora_name, _ = extract(model, "b", 128, "x")
    base, own = plain_weights(model), plain_weights(finetune)
    target = fused(base, "b-pooled")
    loaded = patched_weights(nodes.CLEARLoader(finetune, lora_name))
    for key in own:
        change = target[key] - base[key].double()
        lost = (loaded[key].double() - own[key].double() - change).norm()
        assert lost <= 0.005 * change.norm() + 1e-4, key
    lora = loras(finetune)["diffusers"]
    before = patched_weights(nodes.CLEARLoader(lora(finetune), lora_name))
    after = patched_weights(lora(nodes.CLEARLoader(finetune, lora_name)))
    assert_same_bits(before, after)
    assert_close({LINEAR1: before[LINEAR1][384:]}, {LINEAR1: own[LINEAR1][384:].double()})


def test_a_stopped_extraction_leaves_nothing(extract, flux_model, folders, monkeypatch):
    import comfy.model_management

    asked = []

    def stop():
        asked.append(True)
        if len(asked) == 5:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        extract(flux_model("b"), "b", 4)
    assert not list(folders.rglob("*rank*"))


def test_a_full_disk_leaves_nothing(extract, flux_model, folders, product, monkeypatch):

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(product("weights.checkpoint"), "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        extract(flux_model("b"), "b", 4)
    assert not list((folders / "loras" / "clear").iterdir())


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", ".hidden", "c:x", "a\0b", "x.", "a\nb", ".safetensors"],
    ids=repr,
)
def test_a_name_with_folders_is_refused(name, extract, flux_model, folders):
    with pytest.raises(ValueError, match="must be a file name without folders"):
        extract(flux_model("b"), "b", 4, name)
    assert not (folders / "loras" / "clear").exists()


@pytest.mark.parametrize("name", ["mine", " mine.safetensors", "mine.SafeTensors"])
def test_a_name_is_taken_with_or_without_its_ending(name, extract, flux_model, folders):
    assert extract(flux_model("b"), "b", 4, name)[0] == "mine.safetensors"
    assert extract(flux_model("b"), "b", 2, name)[0] == "mine.safetensors"  # its own goes


def test_a_name_that_another_clear_file_has_is_refused(extract, flux_model, folders):
    other = folders / "clear" / FILES["b"]
    before = other.read_bytes()
    with pytest.raises(ValueError, match=r"must be free, got clear_local_4_down_4\.safetensors"):
        extract(flux_model("b"), "b", 4, "clear_local_4_down_4")
    assert other.read_bytes() == before and not (folders / "loras" / "clear").exists()


def test_the_file_itself_is_not_overwritten(extract, flux_model, folders):
    extract(flux_model("b"), "b", 4, "another")  # makes the folder and has it listed
    whole = folders / "loras" / "clear" / FILES["b"]
    (folders / "clear" / FILES["b"]).rename(whole)
    before = whole.read_bytes()
    with pytest.raises(ValueError, match="another one than that of the CLEAR file itself"):
        extract(flux_model("b"), "b", 4, FILES["b"])
    assert whole.read_bytes() == before


def test_what_is_of_low_rank_already_is_refused(extract, flux_model, folders):
    model = flux_model("b")
    name, _ = extract(model, "b", 4)
    shutil.copy(folders / "loras" / "clear" / name, folders / "clear" / FILES["b"])
    with pytest.raises(ValueError, match=r"must hold whole weights .* got changes of rank 4"):
        extract(model, "b", 2)


def test_a_model_of_8_bits_is_refused(extract, flux_model):
    with pytest.raises(ValueError, match="The model to extract from must hold its weights in bf16"):
        extract(flux_model("b", torch.float8_e4m3fn), "b", 4)


def test_a_model_of_scaled_8_bits_is_refused(extract, flux_model):
    with pytest.raises(ValueError, match="The model to extract from must hold its weights in bf16"):
        extract(scaled_model(flux_model("b")), "b", 4)


def test_a_model_of_another_size_is_refused(extract, flux_model):
    with pytest.raises(ValueError, match="is made for a model of width 128"):
        extract(flux_model("a"), "b", 4)


def test_a_bias_for_another_model_is_refused(extract, flux_model, nodes, folders):
    from safetensors.torch import load_file

    from clear_attention.weights import low_rank

    model = flux_model("b")
    name, _ = extract(model, "b", 4)
    path = folders / "loras" / "clear" / name
    tensors = load_file(path)
    key = "diffusion_model.single_blocks.0.linear1.diff_b"
    tensors[key] = tensors[key][:-128].clone()
    low_rank.save(path, tensors, radius=4)
    with pytest.raises(ValueError, match=r"with 768 rows in single_blocks\.0\.linear1\.bias"):
        nodes.CLEARLoader(model, name)


def test_sd3_is_extracted_too(
    sd3_model, sd3_clear, sd3_folders, node_classes, nodes, tmp_path, monkeypatch
):
    import folder_paths

    entry = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", entry)
    model, file = sd3_model("3.5-medium"), sd3_clear("3.5-medium", 2)
    with torch.inference_mode():
        name, _ = node_classes["CLEARExtractLoRA"].execute(model, file.name, 192).args
    base, target = plain_weights(model), patched_weights(nodes.CLEARLoader(model, file.name))
    ours = patched_weights(nodes.CLEARLoader(model, name))
    assert_same_bits(ours, patched_weights(load_lora(model, name)))
    for key in base:
        change = (target[key] - base[key]).norm()
        assert (ours[key] - target[key]).norm() <= 0.005 * change + 1e-4, key
    bias = next(key for key in base if key.endswith("attn2.qkv.bias"))
    assert not torch.equal(ours[bias], base[bias])
