"""Reading, loading and writing whole checkpoint files."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from clear_attention.weights import CheckpointError, checkpoint, load, read, save

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_loading_gives_the_files_values_in_the_files_dtype(dtype, published, published_file):
    expected = published(dtype=dtype, factor=4)
    loaded = load(read(published_file(dtype=dtype, factor=4)))
    assert loaded.keys() == expected.keys()
    assert {tensor.dtype for tensor in loaded.values()} == {dtype}
    assert all(torch.equal(loaded[k].float(), expected[k].float()) for k in expected)


def test_reading_touches_the_header_only(published_file, monkeypatch):
    path = published_file()
    monkeypatch.setattr(checkpoint, "load_file", lambda *_, **__: pytest.fail("loaded tensors"))
    found = read(path)
    assert found.tensors["transformer_blocks.0.attn.to_q.weight"].shape == (6, 6)
    assert found.tensors["transformer_blocks.0.attn.to_q.weight"].dtype == "BF16"


def test_the_hosts_rows_are_found_once_for_each_tensor_but_pooling(published_file):
    found = read(published_file(factor=4))
    assert found.rows is found.rows
    assert found.rows.keys() == {name for name in found.tensors if "spatial_weight" not in name}
    to_k = found.rows["single_transformer_blocks.1.attn.to_k.bias"]
    assert to_k == ("single_blocks.1.linear1.bias", (0, 6, 6))


@pytest.mark.parametrize("pool_factor", [0, 4])
def test_what_is_written_is_read_back_whatever_its_name(pool_factor, published, tmp_path):
    tensors = published(factor=pool_factor)
    path = tmp_path / "anything.safetensors"
    save(path, tensors, radius=12, pool_factor=pool_factor, base="flux1-dev")
    found = read(path)
    assert (found.radius, found.pool_factor, found.base) == (12, pool_factor, "flux1-dev")
    assert found.has_metadata
    loaded = load(found)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_metadata_is_what_the_design_says(published, tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, published(factor=4), radius=8, base="flux1-dev")
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "format": "pt",
            "clear.family": "flux",
            "clear.radius": "8",
            "clear.pool_factor": "4",
            "clear.base": "flux1-dev",
        }


def test_a_radius_per_block_is_read_back(published, tmp_path):
    path, radii = (
        tmp_path / "x.safetensors",
        {("double", 0): 4, ("single", 0): 4, ("single", 1): 32},
    )
    save(path, published(), radius=8, radii=radii)
    with safe_open(path, "pt") as file:
        assert file.metadata()["clear.radii"] == "double 0: 4, single 0: 4, single 1: 32"
    assert read(path).radii == radii and read(path).radius == 8
    one = read(path, radius=5)  # of all blocks: what a user gives wins
    assert (one.radius, one.radii) == (5, {})
    save(path, published(), radius=8, radii={})
    assert read(path).radii == {} and "clear.radii" not in read(path).metadata


def test_slices_of_fused_tensors_can_be_written(published, tmp_path):
    tensors = published()
    name = "transformer_blocks.0.attn.to_{}.weight"
    fused = torch.cat([tensors[name.format(part)] for part in "qkv"])
    views = dict(zip(map(name.format, "qkv"), fused.chunk(3), strict=True))
    turned = [key for key in tensors if "to_out" in key and key.endswith("weight")]
    views |= {key: tensors[key].T.contiguous().T for key in turned}
    path = tmp_path / "x.safetensors"
    save(path, {**tensors, **views}, radius=8)
    loaded = load(read(path))
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": 0}, "positive whole number"),
        ({"radius": 8, "radii": {("single", 9): 4}}, "must be blocks of the model"),
        ({"radius": 8, "pool_factor": 2}, "pooling factor"),
        ({"radius": 8, "pool_factor": 0}, "pooling factor"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(arguments, message, published, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "x.safetensors", published(factor=4), **arguments)
    assert not list(tmp_path.iterdir())


def test_an_incomplete_checkpoint_is_not_written(published, tmp_path):
    tensors = published()
    del tensors["single_transformer_blocks.1.attn.to_k.bias"]
    with pytest.raises(CheckpointError, match="incomplete"):
        save(tmp_path / "x.safetensors", tensors, radius=8)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(published, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save(path, published(), radius=8)
    before = path.read_bytes()

    def fail(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, published(hidden=4), radius=8)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("position", [0, -1])
def test_values_that_are_not_finite_are_named(
    dtype, value, position, published, published_file, tmp_path
):
    name = "single_transformer_blocks.1.attn.to_v.weight"
    tensor = published(dtype=dtype)[name]
    tensor.view(-1)[position] = value  # e4m3fn has no infinity and takes NaN for it
    with pytest.raises(CheckpointError, match=rf"'{name}' holds NaN or infinite"):
        load(read(published_file(changes={name: tensor}, dtype=dtype)))
    with pytest.raises(CheckpointError, match=name):
        save(tmp_path / "y.safetensors", {**published(dtype=dtype), name: tensor}, radius=8)


def test_a_file_replaced_after_reading_is_not_mixed_up(published, published_file):
    found = read(published_file())
    published_file(hidden=4)
    with pytest.raises(CheckpointError, match="was replaced"):
        load(found)


def test_a_file_removed_after_reading_is_explained(published_file):
    found = read(published_file())
    found.path.unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(found)
