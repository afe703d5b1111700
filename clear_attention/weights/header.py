"""The header of a .safetensors file: names, shapes, dtypes and metadata, without loading a tensor.

Its size is bounded first, as a file from anywhere must not keep the server busy; then safetensors
checks it. What it refuses comes from anywhere, and is read again to say in one sentence
what is wrong: eight bytes of little-endian length, that many bytes of JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError, safe_open

from ..weights import wrong_files
from .errors import CheckpointError, quoted

# A file for FLUX.1 has 418 tensors of at most 7 dimensions and a header of 50 kB. These bounds
# leave room for any file that a sentence of `wrong_files` recognises.
LONGEST_HEADER = 4_000_000  # bytes; the format allows 100 MB
MOST_TENSORS = 20_000
MOST_DIMENSIONS = 16
# A quote within the metadata's strings has a backslash in front, so that none of them matches.
LONG_SHAPE = re.compile(rb'"shape"\s*:\s*\[(?:[^],]*,){%d}' % MOST_DIMENSIONS)
OFFSETS = b'"data_offsets"'


@dataclass(frozen=True)
class TensorInfo:
    """Shape of a tensor and its dtype in the format's own words, such as ``BF16``."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Header:
    """What a file says about its tensors, and its metadata."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and check a header. Costs a few hundred kilobytes of reading whatever the file's size.

    Raises:
        CheckpointError: The file is absent, unreadable, cut off, damaged, or something else.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(512), size, path.name)
            file.seek(8)
            text = file.read(length)
            _require_bounded(text, path.name)
            try:
                return _read(path)
            except SafetensorError as error:
                raise _damaged(path.name, text, length, size, error) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read(path: Path) -> Header:
    with safe_open(path, "pt") as file:
        names = file.keys()  # the file itself is no iterable
        slices = {name: file.get_slice(name) for name in names}
        tensors = {
            name: TensorInfo(tuple(each.get_shape()), each.get_dtype())
            for name, each in slices.items()
        }
        return Header(tensors, file.metadata() or {})


def _header_length(head: bytes, size: int, name: str) -> int:
    if size == 0:
        raise CheckpointError(f"{name} is empty: {wrong_files.DOWNLOAD_AGAIN}.")
    length = int.from_bytes(head[:8], "little")
    opens = head[8:9] == b"{"
    if opens and length <= LONGEST_HEADER:
        return length
    guess = wrong_files.by_first_bytes(head)
    if guess:
        raise CheckpointError(f"{name} {guess}.")
    if opens:
        raise CheckpointError(
            f"{name} is damaged: its header must be at most {LONGEST_HEADER} bytes long, "
            f"it says {length}; {wrong_files.DOWNLOAD_AGAIN}."
        )
    raise CheckpointError(f"{name} is not a .safetensors file ({size} bytes without its header).")


def _require_bounded(text: bytes, name: str) -> None:
    """Refuse a header whose reading would take long, by two passes over its bytes."""
    if text.count(OFFSETS) > MOST_TENSORS:
        what = f"a header must name at most {MOST_TENSORS} tensors, got {text.count(OFFSETS)}"
    elif LONG_SHAPE.search(text):
        what = f"a tensor must have at most {MOST_DIMENSIONS} dimensions, got more"
    else:
        return
    raise CheckpointError(f"{name} is damaged: {what}; {wrong_files.DOWNLOAD_AGAIN}.")


def _damaged(name: str, text: bytes, length: int, size: int, error: Exception) -> CheckpointError:
    """Say what is wrong with a file that safetensors refuses.

    Args:
        name: Of the file.
        text: Its header, as far as the file goes.
        length: Of the header, as the file says.
        size: Of the file in bytes.
        error: Of safetensors, whose words differ from version to version.
    """
    wanted = 8 + length + _data_bytes(text)
    if size < wanted:
        return CheckpointError(
            f"{name} is cut off: it has {size} of {wanted} bytes; {wrong_files.DOWNLOAD_AGAIN}."
        )
    if size > wanted > 8 + length:
        what = f"it has {size - wanted} bytes more than its header says"
    else:
        reason = quoted(str(error).removeprefix("Error while deserializing header: "))
        what = f"safetensors {safetensors.__version__} cannot use its header, {reason}"
    return CheckpointError(f"{name} is damaged: {what}; {wrong_files.DOWNLOAD_AGAIN}.")


def _data_bytes(text: bytes) -> int:
    """Return how many bytes a header says are behind it; 0 if it is wrong in another way."""
    try:
        document: dict[str, Any] = json.loads(text)
        document.pop("__metadata__", None)
        spans = [entry["data_offsets"] for entry in document.values()]
        end = max(int(end) for _, end in spans)
        return end if sum(int(end) - int(begin) for begin, end in spans) == end else 0
    except (ValueError, RecursionError, AttributeError, TypeError, LookupError, OverflowError):
        return 0
