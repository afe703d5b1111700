"""The losses of a run: a table in CSV, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..atomic_files import written_whole

NAME = "log.csv"
COLUMNS = ("step", "kind", "name", "value")


class Log:
    """Appends to a folder's log; a run that goes on from a state drops what came after it."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open the log at a step."""
        self.path = folder / NAME
        rows = [row for row in read(folder) if row[0] <= step]
        with (
            written_whole(self.path) as part,
            open(part, "w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([COLUMNS, *rows])
        self.board = _tensorboard(folder, step)

    def add(self, step: int, values: Mapping[str, float], kind: str) -> None:
        """Write one step's values, such as the losses of ``train`` or ``held_out`` data."""
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([(step, kind, name, v) for name, v in values.items()])
        for name, value in values.items() if self.board else ():
            self.board.add_scalar(f"{kind}/{name}", value, step)


def read(folder: Path) -> list[tuple[int, str, str, float]]:
    """Read a log: step, kind, name and value of each entry; nothing where there is none."""
    path = folder / NAME
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS)][1:]
    return [(int(step), kind, name, float(value)) for step, kind, name, value in rows]


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None  # the table is enough
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
