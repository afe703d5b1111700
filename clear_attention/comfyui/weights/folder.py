"""The folder models/clear: where the host lists CLEAR files."""

from __future__ import annotations

import os

import folder_paths

from ...weights.errors import CheckpointError, some

FOLDER = "clear"
SUFFIX = ".safetensors"


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


def clear_files() -> list[str]:
    """List the files in models/clear."""
    register_model_folder()
    return folder_paths.get_filename_list(FOLDER)


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
    there = folder_paths.get_filename_list(FOLDER)
    return f"{name} is not in {' or '.join(folder_paths.get_folder_paths(FOLDER))}. " + (
        f"There: {some(there, 10)}." if there else "Put CLEAR checkpoints there."
    )
