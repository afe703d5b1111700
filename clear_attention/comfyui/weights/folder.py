"""The folder models/clear: where the host lists CLEAR files."""

from __future__ import annotations

import os

import folder_paths

from ...weights.errors import CheckpointError, some

FOLDER = "clear"
SUFFIX = ".safetensors"

NONE_YET = "none yet: put CLEAR files into models/clear"
"""Stands in the list of files where there is none."""

NOTE = "put_clear_files_here.txt"
WHAT_GOES_HERE = """\
CLEAR files go here: weights that were distilled for local attention, such as
clear_local_16.safetensors, a good one to start with. Those for FLUX.1 [dev] are at

    https://huggingface.co/Huage001/CLEAR

about 3.6 GB each. In ComfyUI, press R afterwards; the node Load CLEAR Attention lists them.
Without any file, CLEAR Attention (no weights) works on every supported model.
"""


def register_model_folder() -> None:
    """Make ``models/clear`` known to the host, after the user's own paths; safe to call again.

    ``models/loras/clear`` too, where extracted LoRAs are: LoRA loaders list them as ``clear/...``.
    """
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    for folder in folder_paths.get_folder_paths("loras"):
        folder_paths.add_model_folder_path(FOLDER, os.path.join(folder, FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    # A folder that only extra_model_paths.yaml names has no suffixes, which lists every file.
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {SUFFIX})


def make_model_folder() -> None:
    """Make ``models/clear`` with a note of what goes there, once; a read-only disk has none."""
    folder = os.path.join(folder_paths.models_dir, FOLDER)
    try:
        os.mkdir(folder)
        with open(os.path.join(folder, NOTE), "w", encoding="utf-8") as note:
            note.write(WHAT_GOES_HERE)
    except OSError:
        return


def clear_files() -> list[str]:
    """List the files in models/clear; where there is none, a sentence that says so."""
    register_model_folder()
    return folder_paths.get_filename_list(FOLDER) or [NONE_YET]


def path_of(name: str) -> str:
    """Return the path of a CLEAR file.

    Args:
        name: File name, as the folder's list has it.

    Raises:
        CheckpointError: There is no such file, or it is of another kind.
    """
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise CheckpointError(_not_found(name))
    if not path.lower().endswith(SUFFIX):
        raise CheckpointError(f"A CLEAR checkpoint must be a {SUFFIX} file, got {name}.")
    return path


def fingerprint(name: str | None) -> str:
    """Return what changes when a file is replaced under its name, empty where there is none.

    Args:
        name: File name, as the folder's list has it, or None where another node will give it.
    """
    path = folder_paths.get_full_path(FOLDER, name) if name else None
    if path is None:
        return ""
    status = os.stat(path)
    return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"


def _not_found(name: str) -> str:
    if name == NONE_YET:
        return (
            "There is no CLEAR file to load. Put one, such as clear_local_16.safetensors from "
            "https://huggingface.co/Huage001/CLEAR, into "
            f"{os.path.join(folder_paths.models_dir, FOLDER)}, press R and choose it; without "
            "any, use CLEAR Attention (no weights)."
        )
    there = folder_paths.get_filename_list(FOLDER)
    return f"{name} is not in {' or '.join(folder_paths.get_folder_paths(FOLDER))}. " + (
        f"There: {some(there, 10)}." if there else "Put CLEAR checkpoints there."
    )
