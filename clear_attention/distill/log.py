"""The losses of a run: a table in CSV, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..atomic_files import append_whole, written_whole

logger = logging.getLogger(__name__)

NAME = "log.csv"
COLUMNS = ("step", "kind", "name", "value")

Row = tuple[int, str, str, float]


class Log:
    """Appends to a folder's log; a run that goes on from a state drops what came after it."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open the log at a step.

        Raises:
            ValueError: The log that is there is damaged.
            NotWritten: It cannot be written.
        """
        self.path = folder / NAME
        rows = [row for row in read(folder) if row[0] <= step]
        with written_whole(self.path) as part:
            part.write_bytes(_as_text([COLUMNS, *rows]).encode())
        self.board = _tensorboard(folder, step)

    def add(self, step: int, values: Mapping[str, float], kind: str) -> None:
        """Write one step's values, such as the losses of ``train`` or ``held_out`` data.

        Raises:
            NotWritten: The disk is full, or refuses for another reason; the log is as it was.
        """
        append_whole(self.path, _as_text((step, kind, name, v) for name, v in values.items()))
        for name, value in values.items() if self.board else ():
            self.board.add_scalar(f"{kind}/{name}", value, step)


def read(folder: Path) -> list[Row]:
    """Read a log: step, kind, name and value of each entry; nothing where there is none.

    A last row without its end, which a kill has cut, is dropped with a warning.

    Raises:
        ValueError: Another row is damaged; the message names the file and the row.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    if lines.pop():
        logger.warning("CLEAR: the last row of %s was cut off, and is dropped.", path)
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return [row for row in rows if row]


def _row(path: Path, number: int, line: str) -> Row | None:
    """Read a row, None for the title."""
    fields = tuple(line.rstrip("\r").split(","))
    if fields == COLUMNS:
        return None
    try:
        step, kind, name, value = fields
        return int(step), kind, name, float(value)
    except ValueError:
        raise ValueError(
            f"Row {number} of {path} must be {','.join(COLUMNS)}, got {line[:80]!r}: remove that "
            "row or the whole file, which only the plot of the losses needs, to go on."
        ) from None


def _as_text(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None  # the table is enough
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
