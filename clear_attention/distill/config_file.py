"""Distillations as TOML files."""

from __future__ import annotations

from pathlib import Path

from ..config import file
from .config import RunConfig


def read(path: Path) -> RunConfig:
    """Read a run from a TOML file; relative paths in it start at the file's folder.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or of another type.
    """
    return file.read(path, RunConfig)
