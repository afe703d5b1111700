"""Where a run's samples come from: one folder of shards, or several that count together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .shards import Bucket, ShardFolder


class Source(Protocol):
    """Samples in buckets, whose identity is known."""

    @property
    def folder(self) -> Path:
        """Where they are, for messages."""
        ...

    def buckets(self) -> list[Bucket]:
        """Group the samples by what fits into one batch."""
        ...

    def identity(self, samples: int | None = None) -> dict[str, Any]:
        """Return what distinguishes these samples from others, see `ShardFolder.identity`."""
        ...


@dataclass(frozen=True, eq=False)
class Together:
    """Painted samples and further ones, which are drawn from alike.

    Attributes:
        painted: Whose number may grow while a run goes on.
        further: Others by name.
    """

    painted: ShardFolder
    further: Mapping[str, ShardFolder]

    @property
    def folder(self) -> Path:
        """Where the painted ones are."""
        return self.painted.folder

    def buckets(self) -> list[Bucket]:
        """Group the samples of each folder by what fits into one batch."""
        folders = (self.painted, *self.further.values())
        return [bucket for folder in folders for bucket in folder.buckets()]

    def identity(self, samples: int | None = None) -> dict[str, Any]:
        """Return what distinguishes these samples from others.

        Args:
            samples: How many of the painted ones count, the first ones; None for all.
        """
        others = {name: folder.identity() for name, folder in self.further.items()}
        return {**self.painted.identity(samples), **others}
