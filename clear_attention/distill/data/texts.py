"""Text embeddings of a folder of data, each stored once: a file per prompt, named by its contents.

A prompt of FLUX takes 4.2 MB, eight times as much as a latent of 1024 x 1024 pixels, and is painted
with several seeds: samples name its file. Files are never rewritten, so that processes may share
the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...atomic_files import make_folder
from .tensor_files import UNREADABLE, damaged, write_tensors

FOLDER = "texts"
NAME_BYTES = 16
"""Of a file's name, which is the beginning of a SHA-256."""
REMEDY = "start the run again, with its prompts or its pictures, to have it encoded anew"
"""For a damaged text: all of its folder need not go."""


@dataclass(frozen=True)
class Texts:
    """A folder of text embeddings.

    Attributes:
        folder: Where they are.
    """

    folder: Path

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob("*/*.safetensors"))

    def put(self, context: Tensor, pooled: Tensor) -> Tensor:
        """Store a prompt unless it is there, and return its name, ``[16]`` bytes.

        Args:
            context: Text embedding, ``[T, D]``.
            pooled: Pooled text vector, ``[P]``.
        """
        name = _name_of(context, pooled)
        if not self._path(name).exists():
            self._write(name, context, pooled)
        return torch.frombuffer(bytearray(name), dtype=torch.uint8)

    def get(self, name: Tensor, tokens: int) -> dict[str, Tensor]:
        """Load a prompt's ``context`` and ``pooled``.

        Args:
            name: What `put` returned.
            tokens: How long its embedding must be.

        Raises:
            ValueError: The file is damaged, or missing.
        """
        path = self._path(bytes(name.tolist()))
        try:
            with safe_open(path, framework="pt") as file:
                text = {key: file.get_tensor(key) for key in ("context", "pooled")}
            shapes = {key: tuple(tensor.shape) for key, tensor in text.items()}
            if text["context"].ndim != 2 or len(text["context"]) != tokens:
                raise ValueError(f"a text of {tokens} tokens must be in it, got {shapes}")
            if text["pooled"].ndim != 1:
                raise ValueError(f"its pooled vector must have one dimension, got {shapes}")
            return text
        except UNREADABLE as error:
            raise damaged(path, error, REMEDY) from error

    def lost(self, names: Iterable[bytes]) -> list[bytes]:
        """Return those of the names whose file is missing or damaged, as far as headers tell."""
        return [name for name in names if not _is_text(self._path(name))]

    def renew(self, name: bytes, context: Tensor, pooled: Tensor) -> None:
        """Store a prompt again whose file is lost.

        Args:
            name: Of the prompt.
            context: Text embedding, ``[T, D]``.
            pooled: Pooled text vector, ``[P]``.

        Raises:
            ValueError: It has another name: the prompt or its text encoder is another one.
        """
        if _name_of(context, pooled) != name:
            raise ValueError(
                f"{self._path(name)} is damaged or missing, and its prompt gives other numbers "
                "than before: take the prompts and text encoder of before, or delete the folder "
                f"{self.folder.parent} to have the data made anew."
            )
        self._write(name, context, pooled)

    def _write(self, name: bytes, context: Tensor, pooled: Tensor) -> None:
        path = self._path(name)
        make_folder(path.parent)
        write_tensors(path, {"context": context, "pooled": pooled})

    def _path(self, name: bytes) -> Path:
        # In up to 256 folders: a folder of photographs may have as many captions.
        digits = name.hex()
        return self.folder / digits[:2] / f"{digits}.safetensors"


def _is_text(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return {"context", "pooled"} <= set(file.keys())
    except UNREADABLE:
        return False


def _name_of(*tensors: Tensor) -> bytes:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()[:NAME_BYTES]
