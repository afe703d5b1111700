"""What must be the same on all machines before they load a model: versions, nodes, files."""

from __future__ import annotations

import functools
import hashlib
import importlib
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfyui_version import __version__ as HOST_VERSION

from ...headless import PACK
from .prompt import Prompt, is_link

HEAD = 2**20
"""Bytes of a file that are compared: its size and these tell apart what people mix up."""

SHOWN = 5

Inventory = dict[str, str]
"""What is meant, in words -> what it is here."""


def inventory(prompt: Prompt) -> Inventory:
    """Return what the nodes of a prompt depend on, as far as it can be seen without running them.

    Args:
        prompt: Nodes that a worker is to run.
    """
    return {**versions(), **dict(_nodes(prompt)), **dict(_files(prompt))}


def versions() -> Inventory:
    """Return the versions that must be the same, and a checksum of this pack's source."""
    return {
        "ComfyUI": HOST_VERSION,
        "CLEAR Attention": _source_of_pack(),
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__.partition("+")[0],
    }


def differences(name: str, here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Say what another machine must have, and does not; empty if there is nothing.

    Args:
        name: Of the other machine.
        here: This machine's inventory.
        there: The other's.
    """
    parts = [
        f"{what} {there.get(what, 'missing')} (here {here[what]})"
        for what in here
        if there.get(what) != here[what]
    ]
    if not parts:
        return ""
    more = f", and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{name} differs from this machine: {', '.join(parts[:SHOWN])}{more}"


@functools.cache
def _source_of_pack() -> str:
    digest = hashlib.sha256()
    for folder in ("clear_attention", "nodes"):
        for path in sorted((PACK / folder).rglob("*.py")):
            digest.update(path.relative_to(PACK).as_posix().encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:10]


def _nodes(prompt: Prompt) -> Iterator[tuple[str, str]]:
    known: Mapping[str, Any] = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
    for name in sorted({node["class_type"] for node in prompt.values()}):
        if name in known:
            yield f"the node {name}", _source_of(known[name])


def _source_of(node: type) -> str:
    file = getattr(sys.modules.get(node.__module__), "__file__", None)
    if not file or not Path(file).is_file():
        return "there"
    source = Path(file).read_bytes().replace(b"\r\n", b"\n")
    return hashlib.sha256(source).hexdigest()[:10]


def _files(prompt: Prompt) -> Iterator[tuple[str, str]]:
    """Yield the files that inputs name, in whatever folder of the host they lie."""
    names = {
        value
        for node in prompt.values()
        for value in node["inputs"].values()
        if isinstance(value, str) and value and not is_link(value)
    }
    for name in sorted(names):
        for kind in folder_paths.folder_names_and_paths:
            if kind != "custom_nodes":
                yield from _file(f"the file {kind}/{name}", _found(kind, name))
        yield from _file(f"the file input/{name}", _input(name))


def _found(kind: str, name: str) -> str | None:
    try:
        return folder_paths.get_full_path(kind, name)
    except (OSError, ValueError):  # a prompt's text is no name of a file
        return None


def _input(name: str) -> str | None:
    try:
        path = folder_paths.get_annotated_filepath(name)
        return path if Path(path).is_file() else None
    except (OSError, ValueError):
        return None


def _file(what: str, path: str | None) -> Iterator[tuple[str, str]]:
    if path is None or not Path(path).is_file():
        return
    with open(path, "rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()[:10]
    yield what, f"of {Path(path).stat().st_size} bytes ({head})"
