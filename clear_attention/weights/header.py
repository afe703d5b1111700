"""The header of a .safetensors file: names, shapes, dtypes and metadata, without loading a tensor.

The layout is eight bytes of little-endian length, that many bytes of JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors#format). Files come from anywhere: everything that
could be wrong is one sentence.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

from . import wrong_files
from .errors import CheckpointError, quoted

LONGEST_HEADER = 100_000_000  # the format's own limit, in bytes
ITEM_SIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True)
class TensorInfo:
    """Shape of a tensor and its dtype in the format's own words, such as ``BF16``."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Header:
    """What a file says about its tensors, in the order of the file, and its metadata."""

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
            head = file.read(512)
            length = _header_length(head, size, path.name)
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(text) < length:
        raise _truncated(path.name, size, 8 + length)
    return _parse(text, size - 8 - length, path.name)


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


def _parse(text: bytes, data_size: int, name: str) -> Header:
    try:
        document: Any = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{name} is damaged: its header is no valid JSON; {wrong_files.DOWNLOAD_AGAIN}."
        ) from error
    document = cast("dict[str, Any]", document)  # it opens with a brace
    metadata = document.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{name} is damaged: its metadata must be a table of texts.")
    spans: list[tuple[int, int]] = []
    tensors: dict[str, TensorInfo] = {}
    for key, entry in document.items():
        tensors[key], span = _tensor(key, entry, name)
        spans.append(span)
    _check_spans(spans, data_size, name, len(text))
    return Header(tensors, {str(key): str(value) for key, value in metadata.items()})


def _tensor(key: str, entry: Any, name: str) -> tuple[TensorInfo, tuple[int, int]]:
    """Check one tensor's entry; return it and where its bytes lie."""
    parts: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype, shape, span = (parts.get(part) for part in ("dtype", "shape", "data_offsets"))
    if isinstance(dtype, str) and _are_sizes(shape) and _are_sizes(span) and len(span) == 2:
        begin, end = span
        wanted = math.prod(shape) * ITEM_SIZE.get(dtype, 0)
        if dtype not in ITEM_SIZE or end - begin == wanted:
            return TensorInfo(tuple(shape), dtype), (begin, end)
    raise CheckpointError(
        f"{name} is damaged: its header's entry for {quoted(key)} is wrong; "
        f"{wrong_files.DOWNLOAD_AGAIN}."
    )


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_spans(spans: list[tuple[int, int]], data_size: int, name: str, header: int) -> None:
    """Check that the tensors' bytes follow one another, and that the file has exactly those."""
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise CheckpointError(
                f"{name} is damaged: its tensors overlap or leave gaps; "
                f"{wrong_files.DOWNLOAD_AGAIN}."
            )
        position = end
    if position > data_size:
        raise _truncated(name, 8 + header + data_size, 8 + header + position)
    if position < data_size:
        raise CheckpointError(
            f"{name} is damaged: it has {data_size - position} bytes more than its header says; "
            f"{wrong_files.DOWNLOAD_AGAIN}."
        )


def _truncated(name: str, size: int, wanted: int) -> CheckpointError:
    return CheckpointError(
        f"{name} is cut off: it has {size} of {wanted} bytes; {wrong_files.DOWNLOAD_AGAIN}."
    )
