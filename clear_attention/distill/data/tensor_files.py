"""Safetensors files of a run: written as a whole, and one sentence where they are damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...atomic_files import written_whole

UNREADABLE = (
    *(OSError, SafetensorError, ValueError, LookupError),
    *(TypeError, AttributeError, RecursionError),
)
"""What reading a damaged file may raise."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write a safetensors file that is there as a whole or not at all."""
    with written_whole(path) as part:
        save_file(_apart({n: t.detach().contiguous() for n, t in tensors.items()}), part, metadata)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory, such as an optimiser's tables: the format refuses them."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen:
            tensors[name] = tensor.clone()
        seen.add(place)
    return tensors


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file at a second place too, as a whole; where the disk has no links, copy it."""
    with written_whole(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def damaged(path: Path, error: Exception, remedy: str = "") -> ValueError:
    """Return the error of a file of the data that cannot be read.

    Args:
        path: The file.
        error: What reading it raised.
        remedy: What to do; empty for making all of the file's folder anew.
    """
    remedy = remedy or f"delete the folder {path.parent} to have the data made anew"
    return ValueError(f"{path} is damaged ({str(error)[:120]!a}): {remedy}.")
