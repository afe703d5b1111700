"""The name table of FLUX.1: written down against the facts, and converted both ways."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_attention.families.flux import NAMES as FLUX
from clear_attention.families.names import ModelSize
from clear_attention.weights.model_size import measure

PUBLISHED_SIZE = ModelSize(hidden=3072, blocks={"double": 19, "single": 38}, pool_factor=0)
sizes = st.fixed_dictionaries(
    {
        "hidden": st.integers(1, 8),
        "double": st.integers(1, 3),
        "single": st.integers(1, 12),
        "factor": st.sampled_from((0, 2, 3, 4)),
    }
)


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize(("pool_factor", "count"), [(0, 380), (4, 437)])
def test_a_published_file_has_the_number_of_tensors_that_the_authors_saved(pool_factor, count):
    size = ModelSize(PUBLISHED_SIZE.hidden, PUBLISHED_SIZE.blocks, pool_factor)
    assert len(list(FLUX.names(size))) == count


def test_a_published_file_has_the_number_of_parameters_that_the_authors_saved():
    slices = FLUX.slices(PUBLISHED_SIZE)
    values = sum(3072 * (3072 if name.endswith("weight") else 1) for name in slices)
    assert round(values / 1e6, 1) == 1793.6


@pytest.mark.parametrize(
    ("name", "key", "first_row"),
    [
        ("transformer_blocks.0.attn.to_q.weight", "double_blocks.0.img_attn.qkv.weight", 0),
        ("transformer_blocks.18.attn.to_k.bias", "double_blocks.18.img_attn.qkv.bias", 3072),
        ("transformer_blocks.7.attn.to_v.weight", "double_blocks.7.img_attn.qkv.weight", 6144),
        ("transformer_blocks.7.attn.to_out.0.bias", "double_blocks.7.img_attn.proj.bias", 0),
        ("single_transformer_blocks.37.attn.to_q.bias", "single_blocks.37.linear1.bias", 0),
        ("single_transformer_blocks.0.attn.to_k.weight", "single_blocks.0.linear1.weight", 3072),
        ("single_transformer_blocks.11.attn.to_v.weight", "single_blocks.11.linear1.weight", 6144),
    ],
)
def test_a_tensor_becomes_the_rows_of_a_fused_layer(name, key, first_row):
    assert FLUX.slices(PUBLISHED_SIZE)[name] == (key, (0, first_row, 3072))


def test_no_two_tensors_become_the_same_rows():
    slices = FLUX.slices(PUBLISHED_SIZE)
    assert len(set(slices.values())) == len(slices) == 380


@settings(max_examples=30, deadline=None)
@given(size=sizes)
def test_converting_to_the_host_and_back_changes_nothing(size, published):
    tensors = published(**size)
    measured = measure(FLUX, shapes(tensors), "file")
    host = {}
    for name, (key, (_, start, rows)) in FLUX.slices(measured).items():
        tail = [size["hidden"]] if key.endswith("weight") else []
        fused = host.setdefault(key, torch.full([7 * size["hidden"], *tail], torch.nan).bfloat16())
        fused[start : start + rows] = tensors[name]
    back = FLUX.from_host(host, measured)
    back |= FLUX.pooling_tensors(FLUX.pooling_weights(tensors))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@settings(max_examples=30, deadline=None)
@given(size=sizes)
def test_a_size_is_read_off_the_shapes(size, published):
    measured = measure(FLUX, shapes(published(**size)), "file")
    blocks = {"double": size["double"], "single": size["single"]}
    assert measured == ModelSize(size["hidden"], blocks, size["factor"])


def test_pooling_weights_are_ordered_by_rows_then_columns(published):
    tensors = published(factor=4)
    weights = FLUX.pooling_weights(tensors)
    assert weights.keys() == {("double", 0), ("double", 1), *(("single", i) for i in range(3))}
    original = tensors["single_transformer_blocks.2.attn.processor.spatial_weight"]
    for dy in range(4):
        for dx in range(4):
            assert weights["single", 2][dy, dx] == original[0, 0, 0, dy, 0, dx, 0]


def test_pooling_weights_do_not_hold_on_to_the_file(published):
    """Whoever copies them, as the host does with a model's options, copies their whole memory."""
    whole = torch.zeros(1000)
    name = "single_transformer_blocks.0.attn.processor.spatial_weight"
    weights = FLUX.pooling_weights({name: whole[:16].view(1, 1, 1, 4, 1, 4, 1)})
    assert weights["single", 0].untyped_storage().nbytes() == 16 * 4


@pytest.mark.parametrize(
    "name",
    [
        "transformer_blocks.00.attn.to_q.weight",
        "transformer_blocks.-1.attn.to_q.weight",
        "transformer_blocks.1000.attn.to_q.weight",
        "transformer_blocks.0.attn.to_q.weights",
        "transformer_blocks.0.attn.add_q_proj.weight",
        "single_transformer_blocks.0.attn.to_out.0.weight",
        "prefix.transformer_blocks.0.attn.to_q.weight",
        "transformer_blocks.{}.attn.to_q.weight",
        "",
    ],
)
def test_other_names_have_no_place(name):
    assert FLUX.place(name) is None
