"""The name tables of all families: which file is for whom, there and back, and sizes by shapes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from clear_attention.families.names import ModelSize
from clear_attention.families.projections import Widths
from clear_attention.weights import CheckpointError, low_rank, read, save
from clear_attention.weights.checkpoint import TABLES
from clear_attention.weights.rows import change_rows

BY_KEY = {table.family: table for table in TABLES}
PUBLISHED = {"flux", "sd3"}
FACTOR, RANK = 2, 3


def size_of(table, rank=0):
    """Return a size of which every number is another one, as far as the family allows."""
    blocks = {kind.name: 2 + number for number, kind in enumerate(table.kinds)}
    if table.family == "sd3":
        blocks = {"joint": 2, "image": 1}
    hidden = table.width_per_block * 2 or 12
    own = {
        kind.name: Widths(hidden + number, 8 + number, 4 + number)
        for number, kind in enumerate(table.kinds)
        if kind.own_widths
    }
    if own and all(kind.own_widths for kind in table.kinds):
        hidden = own[table.kinds[0].name].hidden
    return ModelSize(hidden, blocks, FACTOR, rank, own)


def pooling_of(table, size):
    blocks = [(kind.name, i) for kind in table.kinds for i in range(size.blocks[kind.name])]
    values = torch.rand(len(blocks), FACTOR, FACTOR, generator=torch.Generator().manual_seed(1))
    return dict(zip(blocks, values, strict=True))


def whole(table, size):
    """Return a checkpoint's tensors, and the host's ones that they are cut from."""
    generator = torch.Generator().manual_seed(0)
    host = {}
    for name, (key, (_, start, rows)) in table.slices(size).items():
        layer, _, parameter = name.rpartition(".")
        columns = [table.shapes(size)[layer][1]] if parameter == "weight" else []
        there = host.get(key, torch.empty(0, *columns))
        more = max(0, start + rows - len(there))
        host[key] = torch.cat([there, torch.randn(more, *columns, generator=generator)])
    tensors = table.from_host(host, size) | table.pooling_tensors(pooling_of(table, size))
    return {name: tensor.clone() for name, tensor in tensors.items()}, host


def changes(table, size):
    generator = torch.Generator().manual_seed(0)
    tensors = table.pooling_tensors(pooling_of(table, size))
    for layer, (rows, columns) in table.shapes(size).items():
        name = f"{table.lora_prefix}{layer}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator)
    return tensors


@pytest.mark.parametrize("key", BY_KEY)
def test_a_file_comes_back_as_it_was_with_its_family_and_its_size(key, tmp_path):
    table, size = BY_KEY[key], size_of(BY_KEY[key])
    tensors, host = whole(table, size)
    save(tmp_path / "a.safetensors", tensors, radius=4, family=key)
    found = read(tmp_path / "a.safetensors")
    assert (found.family, found.size) == (key, size)
    assert set(table.names(size)) == tensors.keys()
    rebuilt = {name: torch.full_like(tensor, torch.nan) for name, tensor in host.items()}
    for name, (to, rows) in found.rows.items():
        rebuilt[to].narrow(*rows).copy_(tensors[name])
    assert all(torch.equal(rebuilt[name], tensor) for name, tensor in host.items())
    weights = table.pooling_weights(tensors)
    assert weights.keys() == pooling_of(table, size).keys()


@pytest.mark.parametrize("key", BY_KEY)
def test_a_low_rank_file_comes_back_with_its_family_and_its_size(key, tmp_path):
    table, size = BY_KEY[key], size_of(BY_KEY[key], RANK)
    tensors = changes(table, size)
    low_rank.save(tmp_path / "a.safetensors", tensors, radius=4, family=key)
    found = read(tmp_path / "a.safetensors")
    assert (found.family, found.size) == (key, size)
    assert found.rows.keys() == change_rows(table, size).keys()
    assert set(table.names(size)) == tensors.keys()


@pytest.mark.parametrize("key", BY_KEY)
def test_every_row_of_the_host_has_one_tensor_and_every_tensor_a_place(key):
    table, size = BY_KEY[key], size_of(BY_KEY[key])
    taken = set()
    for name, (to, (_, start, rows)) in table.slices(size).items():
        place = table.place(name)
        assert place is not None and name == f"{place.layer.file}.{place.parameter}".format(
            place.index
        )
        mine = {(to, row) for row in range(start, start + rows)}
        assert not taken & mine
        taken |= mine
    assert len({name.rpartition(".")[0] for name in table.slices(size)}) == len(table.shapes(size))


@pytest.mark.parametrize("key", BY_KEY)
def test_without_its_family_a_file_is_taken_for_a_published_one_or_none(key, tmp_path):
    tensors, _ = whole(BY_KEY[key], size_of(BY_KEY[key]))
    save_file(tensors, tmp_path / "clear_local_4.safetensors")
    if key in PUBLISHED:
        assert read(tmp_path / "clear_local_4.safetensors").family == key
        return
    try:
        assert read(tmp_path / "clear_local_4.safetensors").family == "flux"
        assert BY_KEY[key].kinds == BY_KEY["flux"].kinds
    except CheckpointError:
        assert BY_KEY[key].kinds != BY_KEY["flux"].kinds


@pytest.mark.parametrize("key", BY_KEY)
def test_a_projection_of_another_width_is_named(key, tmp_path):
    table, size = BY_KEY[key], size_of(BY_KEY[key])
    tensors, _ = whole(table, size)
    name = [name for name in tensors if name.endswith(".weight")][-1]
    tensors[name] = tensors[name][:-1].clone()
    with pytest.raises(CheckpointError, match="must have the shape") as raised:
        save(tmp_path / "a.safetensors", tensors, radius=4, family=key)
    assert name in str(raised.value)


@pytest.mark.parametrize("key", BY_KEY)
def test_a_bias_that_the_family_has_not_is_foreign_and_one_that_it_has_must_be_there(key, tmp_path):
    table, size = BY_KEY[key], size_of(BY_KEY[key])
    tensors, _ = whole(table, size)
    layer = table.kinds[0].layers[0]
    name = f"{layer.file}.bias".format(0)
    if layer.biased:
        del tensors[name]
    else:
        tensors[name] = torch.zeros(layer.shape(size.widths(table.kinds[0]))[0])
    sentence = "1 tensor.s. are missing" if layer.biased else "1 tensor.s. that none has"
    with pytest.raises(CheckpointError, match=sentence):
        save(tmp_path / "a.safetensors", tensors, radius=4, family=key)
