"""Runs as TOML files: tables become the dataclasses of `config`, with every mistake named."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ConfigError, RunConfig, Section

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def read(path: Path) -> RunConfig:
    """Read a run from a TOML file; relative paths in it start at the file's folder.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or of another type.
    """
    try:
        tree = _toml().loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as a TOML file: {error}") from error
    return _anchored(build(tree), path.resolve().parent)


def read_prompts(path: Path) -> list[str]:
    """Read one prompt per line; empty lines do not count.

    Raises:
        ConfigError: There are none, or the file is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"The prompts cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} must be UTF-8 text, line {line} has other bytes: save it as UTF-8."
        ) from error
    return prompts_in(text, str(path))


def prompts_in(text: str, name: str) -> list[str]:
    """Split a text into prompts, one per line; empty lines do not count.

    Args:
        text: With or without the mark that some editors put in front (BOM).
        name: What to call the text in an error.

    Raises:
        ConfigError: There are none.
    """
    lines = (line.strip("\ufeff\0 \t") for line in text.splitlines())
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ConfigError(f"{name} must have a prompt on at least one line, got none.")
    return [line.strip() for line in prompts]


def build(tree: Mapping[str, Any]) -> RunConfig:
    """Make a run from a tree of settings; those left out keep their default.

    Raises:
        ConfigError: Settings are unknown, lacking or of another type; each has a sentence.
    """
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError as error:
        raise ImportError(
            "Reading a run's settings needs pydantic: python -m pip install pydantic"
        ) from error
    try:
        # As JSON, which has lists for tuples and text for paths as TOML does.
        return TypeAdapter(RunConfig).validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(" ".join(map(_sentence, error.errors()))) from None


def _sentence(mistake: ErrorDetails) -> str:
    at, value = ".".join(map(str, mistake["loc"])), mistake["input"]
    if mistake["type"] == "value_error":  # by `config`, in a sentence already
        return str(mistake.get("ctx", {})["error"])
    if mistake["type"] == "missing":
        return f"The setting {at} is required."
    if mistake["type"] == "unexpected_keyword_argument":
        return f"Unknown setting {at}; known are {', '.join(_known(mistake['loc'][:-1]))}."
    other, _, expected = mistake["msg"].partition("Input should be ")
    if other:
        return f"The setting {at} cannot be {value!r}: {other}."
    return f"The setting {at} must be {expected.replace('an object', 'a table')}, got {value!r}."


def _known(section: Sequence[Any]) -> list[str]:
    """Return the names of a section's settings."""
    kind: Any = RunConfig
    for name in section:
        kind = typing.get_type_hints(kind)[name]
    return sorted(entry.name for entry in dataclasses.fields(kind))


def _anchored(section: Any, folder: Path) -> Any:
    """Return a section whose relative paths start at a folder."""
    changes: dict[str, Any] = {}
    for entry in dataclasses.fields(section):
        value = getattr(section, entry.name)
        if isinstance(value, Section):
            changes[entry.name] = _anchored(value, folder)
        elif isinstance(value, Path):
            changes[entry.name] = folder / value
    return dataclasses.replace(section, **changes)


def _toml() -> types.ModuleType:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    try:
        import tomli  # pyright: ignore[reportMissingImports] - only there on Python 3.10
    except ImportError as error:
        raise ImportError(
            "Reading a run's settings needs tomli on Python 3.10: python -m pip install tomli"
        ) from error
    return tomli
