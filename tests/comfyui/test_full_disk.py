"""A full disk under the nodes' own files, pictures, plots and LoRAs: a sentence, no remains."""

from __future__ import annotations

import shutil

import pytest
import torch
from disk import full_disk

from .golden import FOLDER

CLEAR = "clear_local_4.safetensors"


@pytest.fixture
def writes(product, node_classes, flux_model, tmp_path, monkeypatch):
    """Return each kind of write: the file, and what writes it."""
    import folder_paths

    for kind in ("clear", "loras"):
        (tmp_path / kind).mkdir()
        entry = ([str(tmp_path / kind)], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, entry)
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    shutil.copy(FOLDER / "clear_a_local.safetensors", tmp_path / "clear" / CLEAR)
    (tmp_path / "log.csv").write_text("step,kind,name,value\n1,train,loss,0.5\n2,train,loss,0.4\n")
    pictures = product("comfyui.core.pictures")
    validation = product("comfyui.distill.validation")
    extract = node_classes["CLEARExtractLoRA"].execute

    def extract_lora():
        with torch.inference_mode():
            extract(flux_model("a"), CLEAR, 2)

    return {
        "picture": (
            tmp_path / "teacher_and_student.png",
            lambda: pictures.save_picture(
                torch.rand(64, 64, 3), tmp_path / "teacher_and_student.png"
            ),
        ),
        "plot": (tmp_path / "losses.png", lambda: validation.draw_losses(tmp_path)),
        "extracted": (tmp_path / "loras/clear/clear_local_4_rank_2.safetensors", extract_lora),
    }


@pytest.mark.parametrize("kind", ["picture", "plot", "extracted"])
def test_a_full_disk_is_a_sentence_and_changes_no_file(kind, writes, tmp_path):
    path, write = writes[kind]
    write()
    before = contents(tmp_path)
    assert path in before
    with pytest.raises(OSError, match="cannot be written") as error, full_disk():
        write()
    assert str(error.value).startswith(f"{path} cannot be written, ")
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before
    assert not list(tmp_path.rglob("*.part"))
    write()  # with space again


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
