"""The folder of a comparison: rows that a stopped run goes on with, and the report."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence

from ..atomic_files import append_whole, write_text_whole
from ..config.bounds import ConfigError
from .config import CompareConfig
from .measurement import Measurement, columns

ROWS, SETTINGS, REPORT = "rows.csv", "settings.json", "report.md"


class Results:
    """What a comparison has measured, kept in its folder.

    A line of the table is a picture by one model. All lines of a prompt are written at once, so
    that a run that was stopped goes on at the next prompt.
    """

    def __init__(self, config: CompareConfig) -> None:
        self.folder = config.output
        self._columns = columns(list(config.vision))
        self._settings = settings_of(config)

    def open(self) -> list[Measurement]:
        """Make the folder, or read what an earlier run of these settings has left in it.

        Raises:
            ConfigError: The folder is of other settings, or its rows are damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        if not path.is_file():
            write_text_whole(path, self._settings)
        elif path.read_text(encoding="utf-8") != self._settings:
            raise ConfigError(
                f"{self.folder} must be of these settings, got rows of others. Name another folder "
                "as output, or remove this one."
            )
        if not (self.folder / ROWS).is_file():
            append_whole(self.folder / ROWS, self._lines([self._columns]))
        return self.read()

    def read(self) -> list[Measurement]:
        """Read all rows.

        Raises:
            ConfigError: They are damaged.
        """
        path = self.folder / ROWS
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return [Measurement.of_row(row) for row in csv.DictReader(file, restval="")]
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise ConfigError(
                f"{path} is damaged ({type(error).__name__}: {error}): remove its folder to begin "
                "anew."
            ) from error

    def add(self, measurements: Sequence[Measurement]) -> None:
        """Append all rows of a prompt in one write."""
        rows = [[one.to_row().get(name, "") for name in self._columns] for one in measurements]
        append_whole(self.folder / ROWS, self._lines(rows))

    def report(self, text: str) -> None:
        """Write the report anew."""
        write_text_whole(self.folder / REPORT, text)

    def _lines(self, rows: Sequence[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()


def settings_of(config: CompareConfig) -> str:
    """Write what a row depends on; how many prompts there are may change between runs."""
    tree = dataclasses.asdict(config)
    for name in ("output", "sheets", "comfyui", "base_directory"):
        del tree[name]
    del tree["sampling"]["count"]
    return json.dumps(tree, default=str, indent=1)
