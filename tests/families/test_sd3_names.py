"""The name table of SD3, which files are taken for SD3, and what is said of those that are not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from clear_attention.families.names import ModelSize
from clear_attention.families.sd3 import NAMES as SD3
from clear_attention.weights import CheckpointError, read, save
from clear_attention.weights.model_size import measure

LARGE = ModelSize(2432, {"joint": 38, "image": 0}, 0)
MEDIUM = ModelSize(1536, {"joint": 24, "image": 13}, 4)
sizes = st.fixed_dictionaries(
    {
        "joint": st.integers(1, 3),
        "image": st.integers(0, 3),
        "factor": st.sampled_from((0, 2, 4)),
    }
)


def made_up(joint=2, image=0, factor=0):
    """Make the tensors of an SD3 checkpoint, names and shapes written down a second time."""
    hidden = 64 * joint
    image = min(joint, image)
    generator = torch.Generator().manual_seed(joint + 10 * image)
    tensors = {}
    for attention, count in (("attn", joint), ("attn2", image)):
        for index in range(count):
            name = f"transformer_blocks.{index}.{attention}"
            for layer in ("to_q", "to_k", "to_v", "to_out.0"):
                tensors[f"{name}.{layer}.weight"] = torch.randn(hidden, hidden, generator=generator)
                tensors[f"{name}.{layer}.bias"] = torch.randn(hidden, generator=generator)
            if factor:
                tensors[f"{name}.processor.spatial_weight"] = torch.randn(
                    1, 1, 1, factor, 1, factor, 1, generator=generator
                )
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def written(folder, tensors, metadata=None, name="clear_local_8.safetensors"):
    save_file(tensors, folder / name, metadata)
    return folder / name


@pytest.mark.parametrize(
    ("size", "name", "key", "first_row"),
    [
        (LARGE, "0.attn.to_q.weight", "0.x_block.attn.qkv.weight", 0),
        (LARGE, "37.attn.to_k.bias", "37.x_block.attn.qkv.bias", 2432),
        (LARGE, "7.attn.to_v.weight", "7.x_block.attn.qkv.weight", 4864),
        (LARGE, "37.attn.to_out.0.bias", "37.x_block.attn.proj.bias", 0),
        (MEDIUM, "12.attn2.to_q.weight", "12.x_block.attn2.qkv.weight", 0),
        (MEDIUM, "0.attn2.to_k.weight", "0.x_block.attn2.qkv.weight", 1536),
        (MEDIUM, "3.attn2.to_v.bias", "3.x_block.attn2.qkv.bias", 3072),
        (MEDIUM, "12.attn2.to_out.0.weight", "12.x_block.attn2.proj.weight", 0),
    ],
)
def test_a_tensor_becomes_the_rows_of_a_fused_layer(size, name, key, first_row):
    rows = SD3.slices(size)[f"transformer_blocks.{name}"]
    assert rows == (f"joint_blocks.{key}", (0, first_row, size.hidden))


@pytest.mark.parametrize(("size", "count"), [(LARGE, 38 * 8), (MEDIUM, (24 + 13) * 9)])
def test_every_attention_has_its_tensors(size, count):
    assert len(list(SD3.names(size))) == count
    slices = SD3.slices(size)
    assert len(set(slices.values())) == len(slices)


@settings(max_examples=20, deadline=None)
@given(size=sizes)
def test_converting_to_the_host_and_back_changes_nothing(size):
    tensors = made_up(**size)
    measured = measure(SD3, shapes(tensors), "file")
    image = min(size["joint"], size["image"])
    factor = size["factor"]
    assert measured == ModelSize(
        64 * size["joint"], {"joint": size["joint"], "image": image}, factor
    )
    host = {}
    for name, (key, (_, start, rows)) in SD3.slices(measured).items():
        tail = [measured.hidden] if key.endswith("weight") else []
        fused = host.setdefault(key, torch.full([3 * measured.hidden, *tail], torch.nan).bfloat16())
        fused[start : start + rows] = tensors[name]
    back = SD3.from_host(host, measured)
    back |= SD3.pooling_tensors(SD3.pooling_weights(tensors))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "name",
    [
        "transformer_blocks.0.attn.add_q_proj.weight",
        "transformer_blocks.0.attn.to_add_out.weight",
        "transformer_blocks.0.attn3.to_q.weight",
        "single_transformer_blocks.0.attn.to_q.weight",
    ],
)
def test_other_names_have_no_place(name):
    assert SD3.place(name) is None


@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("factor", [0, 4])
def test_a_file_without_metadata_is_recognised(image, factor, tmp_path):
    found = read(written(tmp_path, made_up(2, image, factor)))
    assert (found.family, found.radius, found.pool_factor) == ("sd3", 8, factor)
    assert found.size == ModelSize(128, {"joint": 2, "image": image}, factor)


def test_what_is_written_is_read_back_and_says_its_family(tmp_path):
    path = tmp_path / "anything.safetensors"
    save(path, made_up(2, 1, 4), radius=12, base="sd3.5-medium")
    with safe_open(path, "pt") as file:
        assert file.metadata()["clear.family"] == "sd3"
    found = read(path)
    assert (found.family, found.radius, found.base) == ("sd3", 12, "sd3.5-medium")


def test_flux_files_say_their_family_too(published, tmp_path):
    path = tmp_path / "anything.safetensors"
    save(path, published(), radius=12)
    with safe_open(path, "pt") as file:
        assert file.metadata()["clear.family"] == "flux"
    assert read(path).family == "flux"


def refuse(path, *words):
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message and message.endswith(".") and message.isascii()
    assert all(word in message for word in words), message


@pytest.mark.parametrize("factor", [0, 4])
def test_every_missing_tensor_is_noticed(factor, tmp_path):
    tensors = made_up(2, 1, factor)
    for name in tensors:
        rest = {key: tensor for key, tensor in tensors.items() if key != name}
        refuse(written(tmp_path, rest), "1 tensor(s) are missing", f"'{name}'")


def test_a_flux_file_without_its_single_blocks_is_no_sd3_file(published_file):
    refuse(published_file(single=0), "64 wide", "single_transformer_blocks are missing")


def test_what_the_metadata_says_is_believed(published_file, tmp_path):
    metadata = {"clear.family": "flux", "clear.radius": "8"}
    cut = published_file(single=0, metadata=metadata)
    refuse(cut, "are missing", "'single_transformer_blocks.0.attn.to_q.weight'")
    refuse(written(tmp_path, made_up(), metadata), "are missing", "single_transformer_blocks")
    metadata["clear.family"] = "sd3"
    refuse(published_file(metadata=metadata), "not a CLEAR checkpoint for SD3")


@pytest.mark.parametrize("family", ["qwen", "", "\n\u202e" * 99])
def test_a_family_that_is_not_known_is_named(family, tmp_path):
    metadata = {"clear.family": family, "clear.radius": "8"}
    refuse(written(tmp_path, made_up(), metadata), "of the family", "flux, sd3")


@pytest.mark.parametrize(("joint", "hidden"), [(3, 128), (1, 128), (2, 64)])
def test_an_impossible_depth_is_refused(joint, hidden, tmp_path):
    tensors = {k: t[(slice(hidden),) * t.ndim] for k, t in made_up(3).items()}
    kept = {k: t.clone() for k, t in tensors.items() if int(k.split(".")[1]) < joint}
    refuse(written(tmp_path, kept), f"got width {hidden} and {joint} blocks")
