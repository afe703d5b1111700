"""Data that several processes make together: each adds shards to a part, and all parts become one.

The work is in pieces, numbered as one process would do them, and the shards of a part bear these
numbers: the folder in the end is, to the bit, the one that a single process writes. A process that
dies leaves its part, which the next run takes in.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .shards import MANIFEST, Samples, ShardFolder

Piece = TypeVar("Piece")

PART = "part-{}"
PATTERN = re.compile(r"part-\d+")


@dataclass(frozen=True)
class Share:
    """What of the work one of several processes does.

    Attributes:
        index: Of the process.
        count: Of all processes.
    """

    index: int = 0
    count: int = 1

    def of(self, pieces: Sequence[Piece], cost: Callable[[Piece], float]) -> list[Piece]:
        """Return the pieces of this process in their order; the dearest are dealt out first.

        Args:
            pieces: The same in each process.
            cost: What a piece takes, in any unit.
        """
        by_cost = sorted(range(len(pieces)), key=lambda number: -cost(pieces[number]))
        return [pieces[number] for number in sorted(by_cost[self.index :: self.count])]

    def from_behind(self) -> Share:
        """Return the share that is small where this one is large, for the next list of pieces."""
        return Share(self.count - 1 - self.index, self.count)

    def part_of(self, data: ShardFolder) -> ShardFolder:
        """Return where this process adds shards: the folder itself if it is alone."""
        if self.count == 1:
            return data
        part = ShardFolder(data.folder / PART.format(self.index), data.made_with)
        part.texts = data.texts
        return part

    def add(self, part: ShardFolder, samples: Samples, number: int) -> None:
        """Write samples as one more shard.

        Args:
            part: What `part_of` returned.
            samples: To write.
            number: Of the shard in the order of one process; it may leave numbers out.
        """
        part.add(samples, None if self.count == 1 else number)


ALONE = Share()
"""Of a process that does all of the work."""


def take_in(folder: Path) -> None:
    """Make the parts of a folder one with it; for one process, while no other one adds.

    A process that is killed here leaves a folder that is as before, or whole.

    Raises:
        ValueError: A part is damaged, or was made with other settings than the folder.
    """
    found = [path for path in folder.glob(PART.format("*")) if PATTERN.fullmatch(path.name)]
    listed = [path for path in sorted(found) if (path / MANIFEST).exists()]
    if listed:
        whole = ShardFolder(folder, ShardFolder(listed[0]).made_with)
        done = whole.seeds()
        parts = [ShardFolder(path, whole.made_with) for path in listed]
        entries = [(part, shard) for part in parts for shard in part.shards]
        entries.sort(key=lambda entry: int(Path(entry[1].file).stem))
        # Those that are done already were taken in by a process that was killed afterwards.
        whole.adopt(
            [entry for entry in entries if not done.issuperset(entry[0].seeds_of(entry[1]))]
        )
    for path in found:
        (path / MANIFEST).unlink(missing_ok=True)  # first: it must list nothing that is gone
        shutil.rmtree(path)
