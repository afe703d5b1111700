"""Checkpoints of low rank: written, read back, and one clear sentence for those not usable."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from clear_attention.families.flux import NAMES as FLUX
from clear_attention.families.names import ModelSize
from clear_attention.families.sd3 import NAMES as SD3
from clear_attention.weights import CheckpointError, checkpoint, load, read
from clear_attention.weights import low_rank as module
from clear_attention.weights.rows import change_rows

from ..families.test_sd3_names import made_up

LAYER = "transformer.transformer_blocks.0.attn.to_q"
METADATA = {"clear.family": "flux", "clear.radius": "8", "clear.rank": "2"}


@pytest.fixture
def write(low_rank, tmp_path):
    """Write made-up changes with their metadata, and with changes: None removes a tensor."""

    def write(changes=None, metadata=METADATA, **kwargs):
        tensors = {**low_rank(**kwargs), **(changes or {})}
        path = tmp_path / "clear_local_8.safetensors"
        save_file({key: t for key, t in tensors.items() if t is not None}, path, metadata)
        return path

    return write


def refuse(path, *words):
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message and message.isascii()
    assert message.endswith(".") and "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("pool_factor", [0, 4])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_what_is_written_is_read_back(rank, pool_factor, low_rank, tmp_path):
    tensors = low_rank(rank, factor=pool_factor)
    path = tmp_path / "anything.safetensors"
    module.save(path, tensors, radius=12, pool_factor=pool_factor, base="flux1-dev")
    found = read(path)
    assert (found.radius, found.pool_factor, found.base) == (12, pool_factor, "flux1-dev")
    assert (found.rank, found.table) == (rank, FLUX)
    assert found.size == ModelSize(6, {"double": 2, "single": 3}, pool_factor, rank)
    loaded = load(found)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_metadata_is_what_the_design_says(low_rank, tmp_path):
    path = tmp_path / "x.safetensors"
    module.save(path, low_rank(factor=4), radius=8, base="flux1-dev")
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "clear.family": "flux",
            "clear.radius": "8",
            "clear.pool_factor": "4",
            "clear.rank": "2",
            "clear.base": "flux1-dev",
        }


def test_whole_weights_have_no_rank(published, tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, published(), radius=8)
    found = read(path)
    assert found.rank == 0 and "clear.rank" not in found.metadata


@pytest.mark.parametrize("arguments", [{"radius": 0}, {"radius": 8, "pool_factor": 2}])
def test_nothing_is_written_that_could_not_be_read(arguments, low_rank, tmp_path):
    with pytest.raises(CheckpointError):
        module.save(tmp_path / "x.safetensors", low_rank(factor=4), **arguments)
    assert not list(tmp_path.iterdir())


def test_whole_weights_are_not_written_as_low_rank(published, tmp_path):
    with pytest.raises(CheckpointError, match=r"^x\.safetensors must hold low-rank changes"):
        module.save(tmp_path / "x.safetensors", published(), radius=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("factor", [0, 4])
def test_sd3_has_the_form_too(image, factor, tmp_path):
    tensors = {}
    for name, tensor in made_up(2, image, factor).items():
        layer = f"transformer.{name.removesuffix('.weight')}"
        if name.endswith(".weight"):
            tensors[f"{layer}.lora_A.weight"] = tensor[:3]
            tensors[f"{layer}.lora_B.weight"] = tensor[:, :3]
        elif name.endswith("spatial_weight"):
            tensors[name] = tensor
    path = tmp_path / "x.safetensors"
    module.save(path, tensors, radius=8)
    found = read(path)
    assert found.table is SD3
    assert found.size == ModelSize(128, {"joint": 2, "image": image}, factor, rank=3)


def test_rows_are_those_of_changes_and_of_biases_but_not_of_pooling(write):
    bias = "diffusion_model.single_blocks.2.linear1.diff_b"
    found = read(write({bias: torch.zeros(42)}, factor=4))
    assert found.rows[bias] == ("single_blocks.2.linear1.bias", (0, 0, 42))
    assert found.rows[LAYER] == ("double_blocks.0.img_attn.qkv.weight", (0, 0, 6))
    layers = {name.removesuffix(".lora_A.weight") for name in found.tensors if "lora_A" in name}
    assert found.rows.keys() == {bias, *layers}


def test_changes_are_mapped_to_the_hosts_rows():
    slices = change_rows(FLUX, ModelSize(6, {"double": 2, "single": 3}, 0, 2))
    assert len(slices) == 2 * 4 + 3 * 3
    assert slices["transformer.transformer_blocks.1.attn.to_k"] == (
        "double_blocks.1.img_attn.qkv.weight",
        (0, 6, 6),
    )
    assert slices["transformer.transformer_blocks.0.attn.to_out.0"] == (
        "double_blocks.0.img_attn.proj.weight",
        (0, 0, 6),
    )
    assert slices["transformer.single_transformer_blocks.2.attn.to_v"] == (
        "single_blocks.2.linear1.weight",
        (0, 12, 6),
    )


@pytest.mark.parametrize("kept", [(), ("clear.family", "clear.radius")], ids=["none", "few"])
def test_a_file_that_does_not_say_its_rank_is_a_lora(kept, write):
    refuse(
        write(metadata={key: METADATA[key] for key in kept}),
        "is a LoRA, not a CLEAR checkpoint",
        "Load LoRA",
    )


@pytest.mark.parametrize("claim", ["0", "1", "3", "two", "", "9" * 5000])
def test_a_rank_that_the_tensors_contradict_is_an_error(claim, write):
    refuse(write(metadata={**METADATA, "clear.rank": claim}), "says rank", "its tensors say 2")


def test_whole_weights_that_claim_a_rank_are_an_error(published_file):
    refuse(published_file(metadata=METADATA), "says rank '2', its tensors say none")


@pytest.mark.parametrize("factor", [0, 4])
def test_every_missing_tensor_is_noticed(factor, low_rank, write):
    for name in low_rank(double=1, single=1, factor=factor):
        path = write({name: None}, double=1, single=1, factor=factor)
        refuse(path, "1 tensor(s) are missing", f"'{name}'")


@pytest.mark.parametrize("factor", [0, 4])
@pytest.mark.parametrize("axis", [0, -1])
def test_every_shape_is_checked(axis, factor, low_rank, write):
    for name, tensor in low_rank(double=1, single=1, factor=factor).items():
        wrong = torch.cat([tensor, tensor], axis)
        refuse(write({name: wrong}, double=1, single=1, factor=factor), "must have the shape")


@pytest.mark.parametrize("shape", [(), (0,), (2,), (0, 6), (2, 0), (2, 6, 1)], ids=str)
@pytest.mark.parametrize("part", ["A", "B"])
def test_odd_shapes_of_the_first_change(part, shape, write):
    refuse(write({f"{LAYER}.lora_{part}.weight": torch.zeros(shape)}), "must have the shape")


def test_the_rank_is_one_for_the_whole_file(write):
    changes = {f"{LAYER}.lora_A.weight": torch.zeros(3, 6)}
    changes[f"{LAYER}.lora_B.weight"] = torch.zeros(6, 3)
    refuse(write(changes), "must have the shape [2, 6], got [3, 6]")


@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_the_two_forms_are_not_mixed(parameter, write):
    name = f"transformer_blocks.0.attn.to_q.{parameter}"
    path = write({name: torch.zeros((6, 6) if parameter == "weight" else 6)})
    refuse(path, "mixes whole weights", f"'{name}'", "('transformer.")


def test_a_scale_may_be_given(write):
    found = read(write({f"{LAYER}.alpha": torch.tensor(4.0)}))
    assert load(found)[f"{LAYER}.alpha"] == 4


@pytest.mark.parametrize(
    ("alpha", "words"),
    [(torch.ones(1), "must have the shape [], got [1]"), (torch.tensor(4), "floating-point")],
)
def test_a_scale_must_be_one_number(alpha, words, write):
    refuse(write({f"{LAYER}.alpha": alpha}), f"{LAYER}.alpha", words)


def test_a_scale_must_be_finite(write):
    with pytest.raises(CheckpointError, match="holds NaN or infinite"):
        load(read(write({f"{LAYER}.alpha": torch.tensor(torch.inf)})))


@pytest.mark.parametrize(
    "name",
    [
        f"{LAYER}.dora_scale",
        f"{LAYER}.lora_mid.weight",
        f"{LAYER}.weight",
        "transformer_blocks.0.attn.to_q.lora_A.weight",
        "transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight",
        "transformer.transformer_blocks.0.attn.processor.spatial_weight",
        "transformer.time_text_embed.lora_A.weight",
    ],
)
def test_what_else_a_lora_may_hold_is_refused(name, write):
    refuse(write({name: torch.zeros(2, 6)}), "1 tensor(s) that none has", f"'{name}'")


def test_a_lora_in_other_names_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    name = "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"
    save_file({name: torch.zeros(2, 6)}, path, {"clear.radius": "8", "clear.rank": "2"})
    refuse(path, "is not a CLEAR checkpoint", name)
