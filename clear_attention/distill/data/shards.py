"""Training data on disk: safetensors shards and a manifest, so that an interrupted job goes on.

A shard holds latents of one size and names the texts of their prompts, which `Texts` keeps. It is
listed in the manifest once it is complete; files that are not listed do not exist. Shards of
version 1 hold the texts themselves, and may be beside newer ones.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ...atomic_files import make_folder, write_text_whole
from ..identity import as_json, differences
from .tensor_files import UNREADABLE, damaged, link_or_copy, write_tensors
from .texts import FOLDER, NAME_BYTES, Texts

MANIFEST = "manifest.json"
VERSIONS = (1, 2)
"""Those that are read; the last one is written."""
NAME = "{:05}.safetensors"
TEXTS = ("context", "pooled")
FILE = re.compile(r"\d{5,}\.safetensors")


@dataclass(frozen=True)
class Shard:
    """One file of samples.

    Attributes:
        file: Name in the folder.
        samples: How many.
        latent: Shape of one latent, ``[C, H, W]``.
        text_tokens: Length of the text embeddings.
    """

    file: str
    samples: int
    latent: tuple[int, ...]
    text_tokens: int


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of one size.

    Attributes:
        latent: ``[N, C, H, W]``, as a VAE gives it.
        context: Text embeddings, ``[N, T, D]``.
        pooled: Pooled text vectors, ``[N, P]``.
        seed: Seed of the noise from which each was painted, ``[N]`` int64.
    """

    latent: Tensor
    context: Tensor
    pooled: Tensor
    seed: Tensor

    def __len__(self) -> int:
        return len(self.latent)


@dataclass(frozen=True, eq=False)
class Bucket:
    """Samples that fit into one batch, numbered.

    Attributes:
        home: Where they are.
        shards: Their files.
    """

    home: ShardFolder
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def latent(self) -> tuple[int, ...]:
        """Shape of one latent."""
        return self.shards[0].latent

    @property
    def painted(self) -> bool:
        """Whether a teacher painted them, each from the noise of its seed."""
        return "sampler" in self.home.made_with

    def load(self, numbers: Sequence[int]) -> Samples:
        """Load samples by their numbers."""
        rows = [self.home.row(*self._place(number)) for number in numbers]
        return Samples(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    def _place(self, number: int) -> tuple[Shard, int]:
        for shard in self.shards:
            if number < shard.samples:
                return shard, number
            number -= shard.samples
        raise IndexError(number)


class ShardFolder:
    """A folder of shards.

    Raises:
        ValueError: The folder's manifest is not usable, or made with other settings.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any] | None = None) -> None:
        """Open a folder, or make it if ``made_with`` is given.

        Args:
            folder: Where the shards are.
            made_with: What the data depends on; a folder made with something else is refused.
        """
        self.folder = folder
        self.made_with = as_json(dict(made_with or {}))
        self.shards: list[Shard] = []
        self.texts = Texts(folder / FOLDER)
        path = folder / MANIFEST
        if path.exists():
            self._read(path, check=made_with is not None)
        elif made_with is None:
            raise ValueError(f"{folder} holds no data: it has no {MANIFEST}.")

    def __len__(self) -> int:
        return sum(shard.samples for shard in self.shards)

    def add(self, samples: Samples, number: int | None = None) -> None:
        """Write samples as one more shard; a text that is there already is not written again.

        Args:
            samples: To write.
            number: Of the shard, above all that there are; None for the next one.
        """
        texts = zip(samples.context, samples.pooled, strict=True)
        tensors = {
            "latent": samples.latent,
            "text": torch.stack([self.texts.put(*text) for text in texts]),
            "seed": samples.seed.long(),
        }
        shape = tuple(samples.latent.shape[1:])
        name = NAME.format(len(self.shards) if number is None else number)
        make_folder(self.folder)
        write_tensors(self.folder / name, tensors)
        self.shards.append(Shard(name, len(samples), shape, samples.context.shape[1]))
        self._write_manifest()

    def adopt(self, found: Sequence[tuple[ShardFolder, Shard]]) -> None:
        """Take shards of other folders in, which keep them, as the next ones.

        Args:
            found: The shards and where they are, in order; their texts are here already.
        """
        for home, shard in found:
            own = replace(shard, file=NAME.format(len(self.shards)))
            link_or_copy(home.folder / shard.file, self.folder / own.file)
            self.shards.append(own)
        self._write_manifest()

    def _write_manifest(self) -> None:
        tree = {
            "version": VERSIONS[-1],
            "made_with": self.made_with,
            "shards": [asdict(shard) for shard in self.shards],
        }
        write_text_whole(self.folder / MANIFEST, json.dumps(tree, indent=1))

    def seeds(self) -> set[int]:
        """Return the seeds of all samples."""
        return {seed for shard in self.shards for seed in self.seeds_of(shard)}

    def identity(self, samples: int | None = None) -> dict[str, Any]:
        """Return what tells these samples from others: settings, number and seeds in their order.

        Args:
            samples: How many of them count, the first ones; None for all.
        """
        seeds = [seed for shard in self.shards for seed in self.seeds_of(shard)][:samples]
        digest = hashlib.sha256(json.dumps(seeds).encode()).hexdigest()[:16]
        return {"made_with": self.made_with, "samples": len(seeds), "seeds": digest}

    def buckets(self) -> list[Bucket]:
        """Group the shards whose samples fit into one batch."""
        groups: dict[tuple[object, ...], list[Shard]] = {}
        for shard in self.shards:
            groups.setdefault((shard.latent, shard.text_tokens), []).append(shard)
        return [Bucket(self, tuple(shards)) for shards in groups.values()]

    def seeds_of(self, shard: Shard) -> list[int]:
        """Return the seeds of a shard's samples."""
        with self._opened(shard) as file:
            return file.get_tensor("seed").tolist()

    def texts_by_seed(self) -> dict[int, bytes]:
        """Return the names of all samples' texts; shards of version 1 hold theirs."""
        found: dict[int, bytes] = {}
        for shard in self.shards:
            with self._opened(shard) as file:
                if not _holds_texts(file):
                    names = map(bytes, file.get_tensor("text").tolist())
                    found |= zip(file.get_tensor("seed").tolist(), names, strict=True)
        return found

    def row(self, shard: Shard, index: int) -> dict[str, Tensor]:
        """Load one sample of a shard, by the names of `Samples`."""
        with self._opened(shard) as file:

            def at(name: str, row: int) -> Tensor:
                return file.get_slice(name)[row : row + 1][0]

            sample = {"latent": at("latent", index), "seed": at("seed", index)}
            if _holds_texts(file):
                texts = {name: at(name, int(at(f"{name}_of", index))) for name in TEXTS}
                return {**sample, **texts}
            name = at("text", index)
        return {**sample, **self.texts.get(name, shard.text_tokens)}

    @contextmanager
    def _opened(self, shard: Shard) -> Generator[Any]:
        """Open a shard, memory-mapped.

        Raises:
            ValueError: It is damaged, or another one than the manifest says.
        """
        path = self.folder / shard.file
        try:
            with safe_open(path, framework="pt") as file:
                _require_listed(file, shard)
                yield file
        except UNREADABLE as error:
            raise damaged(path, error) from error

    def _read(self, path: Path, check: bool) -> None:
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            version, made_with = tree["version"], tree["made_with"]
            shards = [_shard_of(row) for row in tree["shards"]]
            if not isinstance(made_with, dict):
                raise TypeError("made_with is no table")
        except UNREADABLE as error:
            raise damaged(path, error) from error
        if version not in VERSIONS:
            known = " or ".join(map(str, VERSIONS))
            raise ValueError(f"{path} must have version {known}, got {str(version)[:20]!r}.")
        if check and made_with != self.made_with:
            raise ValueError(
                f"{path.parent} was made with other settings: "
                f"{differences(made_with, self.made_with)}. Set it back to go on; or take another "
                "name or folder, or delete it, to paint anew."
            )
        self.made_with, self.shards = made_with, shards


def _shard_of(row: Mapping[str, Any]) -> Shard:
    shard = Shard(row["file"], row["samples"], tuple(row["latent"]), row["text_tokens"])
    numbers = (shard.samples, shard.text_tokens, *shard.latent)
    # A manifest from elsewhere must not name files outside of its folder.
    if not FILE.fullmatch(shard.file) or not all(type(n) is int and n > 0 for n in numbers):
        raise ValueError(f"it lists {row}")
    return shard


def _holds_texts(file: Any) -> bool:
    """Return whether a shard is of version 1, with the texts of its samples inside."""
    return "context" in file.keys()  # noqa: SIM118


def _require_listed(file: Any, shard: Shard) -> None:
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    listed = {"latent": (shard.samples, *shard.latent), "seed": (shard.samples,)}
    if _holds_texts(file):
        listed |= {f"{name}_of": (shard.samples,) for name in TEXTS}
        listed["context"] = (shapes["context"][0], shard.text_tokens, shapes["context"][-1])
        listed["pooled"] = (shapes["pooled"][0], shapes["pooled"][-1])
    else:
        listed["text"] = (shard.samples, NAME_BYTES)
    if any(shapes[name] != shape for name, shape in listed.items()):
        raise ValueError(f"its tensors must be those of the manifest, got {shapes}")
