"""The base directory of a ComfyUI server: its models, pictures and node packs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")


def furnish(base: Path, packs: Mapping[str, Path]) -> None:
    """Make the folders of a base directory, with links to exactly the given packs."""
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    for old in (base / "custom_nodes").iterdir():
        if is_link(old):
            unlink(old)
    for name, folder in packs.items():
        if not folder.is_dir():
            raise FileNotFoundError(f"The node pack {name} must be a folder, got {folder}.")
        link(base / "custom_nodes" / name, folder.resolve())


def link(at: Path, folder: Path) -> None:
    """Make ``at`` show a folder: a symbolic link, on Windows a junction, which needs no rights."""
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(folder), str(at))
    else:
        at.symlink_to(folder, target_is_directory=True)


def is_link(path: Path) -> bool:
    """Say whether a path is a symbolic link or a junction."""
    if path.is_symlink():
        return True
    return sys.platform == "win32" and path.resolve() != path.parent.resolve() / path.name


def unlink(path: Path) -> None:
    """Remove a symbolic link or a junction, not what it shows."""
    if path.is_symlink():
        path.unlink()
    else:
        path.rmdir()
