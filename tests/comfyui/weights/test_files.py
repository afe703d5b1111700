"""The folder models/clear of the real host: its files, and their tensors shared between nodes."""

from __future__ import annotations

import copy
import gc
import os
import shutil

import pytest
import torch

from clear_attention.weights import CheckpointError

from ..golden import FOLDER


@pytest.fixture
def folders(host, tmp_path, monkeypatch):
    """The host's folders with nothing of ours in them, under a path for this test."""
    import folder_paths

    known = {name: entry for name, entry in folder_paths.folder_names_and_paths.items()}
    known.pop("clear", None)
    known["loras"] = ([str(tmp_path / "loras"), "/elsewhere/loras"], {".safetensors"})
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    return folder_paths


@pytest.fixture
def file(folders, weights, tmp_path):
    """Put a golden checkpoint into models/clear under a published name."""
    weights.register_model_folder()
    folder = tmp_path / "models" / "clear"
    folder.mkdir(parents=True, exist_ok=True)

    def put(name="clear_local_4.safetensors", source="clear_a_local"):
        shutil.copy(FOLDER / f"{source}.safetensors", folder / name)
        return folder / name

    return put


def test_the_folder_is_registered_once(folders, weights, tmp_path):
    for _ in range(3):
        weights.register_model_folder()
    own = [tmp_path / "models" / "clear", tmp_path / "loras" / "clear", "/elsewhere/loras/clear"]
    expected = ([*map(str, own)], {".safetensors"})
    assert folders.folder_names_and_paths["clear"] == expected


def test_the_users_own_paths_come_first(folders, weights, tmp_path):
    folders.add_model_folder_path("clear", "/elsewhere/clear", is_default=True)
    for _ in range(3):
        weights.register_model_folder()
    paths, suffixes = folders.folder_names_and_paths["clear"]
    assert paths[:2] == ["/elsewhere/clear", str(tmp_path / "models" / "clear")]
    assert suffixes == {".safetensors"}


def test_extracted_loras_are_listed_by_both_kinds_of_loaders(folders, weights, file, tmp_path):
    name = file().name
    folder = tmp_path / "loras" / "clear"
    folder.mkdir(parents=True)
    shutil.copy(FOLDER / "clear_a_local.safetensors", folder / "clear_local_8.safetensors")
    assert folders.get_filename_list("clear") == [name, "clear_local_8.safetensors"]
    assert folders.get_filename_list("loras") == [
        os.path.join("clear", "clear_local_8.safetensors")
    ]
    assert weights.load_clear("clear_local_8.safetensors").radius == 8


def test_only_safetensors_are_listed(folders, weights, file):
    path = file()
    path.with_name("readme.txt").write_text("no model")
    path.with_name("old.ckpt").write_text("no model")
    assert folders.get_filename_list("clear") == [path.name]


def test_a_file_is_loaded_by_its_name(weights, file):
    file("clear_local_4_down_4.safetensors", "clear_b_down4")
    clear = weights.load_clear("clear_local_4_down_4.safetensors")
    assert (clear.radius, clear.pool_factor) == (4, 4)
    blocks = {("double", 0), ("double", 1), ("single", 0), ("single", 1), ("single", 2)}
    assert clear.pooling_weights.keys() == blocks
    assert all(weight.shape == (4, 4) for weight in clear.pooling_weights.values())
    assert {t.dtype for t in clear.tensors.by_name.values()} == {torch.bfloat16}


def test_a_file_without_pooling_has_no_pooling_weights(weights, file):
    file()
    clear = weights.load_clear("clear_local_4.safetensors")
    assert (clear.radius, clear.pool_factor, clear.pooling_weights) == (4, 0, {})


def test_a_copy_of_the_pooling_weights_is_small(weights, file):
    """The host copies a model's options, where they travel, deeply at each clone."""
    file("clear_local_4_down_4.safetensors", "clear_b_down4")
    clear = weights.load_clear("clear_local_4_down_4.safetensors")
    for weight in copy.deepcopy(clear.pooling_weights).values():
        assert weight.untyped_storage().nbytes() == 16 * weight.element_size()


def test_tensors_are_shared_while_somebody_uses_them(weights, file, flux_model):
    name = file().name
    first = weights.load_clear(name)
    second = weights.load_clear(name, radius=9)
    assert (first.radius, second.radius) == (4, 9)
    assert first.tensors is second.tensors
    model = weights.apply_clear(flux_model("a"), first)
    del first, second
    gc.collect()
    kept = next(iter(model.patches.values()))[0][1].tensors
    assert weights.load_clear(name).tensors is kept
    del kept, model
    gc.collect()
    assert len(weights.loaded._loaded) == 0


def test_a_replaced_file_is_loaded_anew(weights, file):
    path = file()
    first = weights.load_clear(path.name)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert weights.load_clear(path.name).tensors is not first.tensors


def test_a_missing_file_is_answered_with_those_that_are_there(weights, file):
    file()
    with pytest.raises(CheckpointError, match=r"x\.safetensors is not in .*'clear_local_4\.safe"):
        weights.load_clear("x.safetensors")


def test_an_empty_folder_is_answered_with_its_path(folders, weights, tmp_path):
    weights.register_model_folder()
    with pytest.raises(CheckpointError, match="Put CLEAR checkpoints there") as caught:
        weights.load_clear("x.safetensors")
    assert str(tmp_path / "models" / "clear") in str(caught.value)


def test_a_file_that_is_not_listed_is_refused(weights, file):
    file("clear_local_4.ckpt")
    with pytest.raises(CheckpointError, match=r"must be a \.safetensors file"):
        weights.load_clear("clear_local_4.ckpt")


def test_a_damaged_file_is_explained(weights, file):
    path = file()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut off"):
        weights.load_clear(path.name)


def test_values_that_are_not_finite_are_noticed(weights, file):
    path = file()
    content = bytearray(path.read_bytes())
    content[-2:] = b"\xc0\x7f"  # the last bf16 value is NaN
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="NaN"):
        weights.load_clear(path.name)


def test_a_file_that_the_host_cannot_load_is_explained(weights, file, monkeypatch):
    import comfy.utils

    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    name = file().name
    monkeypatch.setattr(comfy.utils, "load_torch_file", fail)
    with pytest.raises(CheckpointError, match="cannot be loaded: no memory"):
        weights.load_clear(name)


def test_an_empty_folder_says_so_in_the_list_and_choosing_it_tells_what_to_do(
    folders, flux_model, product
):
    folder, loader = product("comfyui.weights.folder"), product("comfyui.weights.loader")
    assert folder.clear_files() == [folder.NONE_YET]
    with pytest.raises(ValueError, match=r"no CLEAR file to load\. Put one"):
        loader.load_onto(flux_model("b"), folder.NONE_YET, 1.0, None, "auto")


def test_the_folder_is_made_once_with_a_file_that_says_what_goes_there(folders, product, tmp_path):
    folder = product("comfyui.weights.folder")
    folder.make_model_folder()  # there is no models folder: nothing can be made
    (tmp_path / "models").mkdir()
    folder.make_model_folder()
    note = tmp_path / "models" / "clear" / folder.NOTE
    assert "clear_local_16.safetensors" in note.read_text("utf-8")
    note.unlink()
    folder.make_model_folder()
    assert not note.exists()
