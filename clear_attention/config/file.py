"""TOML files as dataclasses: tables become sections, with every mistake named."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..atomic_files import reason_of
from .bounds import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Config = TypeVar("Config", bound="Section")


class Section:
    """A table of settings."""

    # What `build` reads: no other settings, no values of another type.
    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}


def read(path: Path, kind: type[Config]) -> Config:
    """Read settings from a TOML file; relative paths in it start at the file's folder.

    Args:
        path: Of the file.
        kind: A dataclass, whose sections are dataclasses too.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or of another type.
    """
    try:
        tree = _toml().loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as a TOML file: {reason_of(error)}") from error
    return _anchored(build(tree, kind), path.resolve().parent)


def build(tree: Mapping[str, Any], kind: type[Config]) -> Config:
    """Make settings from a tree of them; those left out keep their default.

    Args:
        tree: As a TOML file has it.
        kind: A dataclass.

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
        return TypeAdapter(kind).validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise ConfigError(" ".join(_sentence(each, kind) for each in error.errors())) from None


def _sentence(mistake: ErrorDetails, kind: type) -> str:
    at, value = ".".join(map(str, mistake["loc"])), mistake["input"]
    if mistake["type"] == "value_error":  # by `bounds`, in a sentence already
        return str(mistake.get("ctx", {})["error"])
    if mistake["type"] == "missing":
        return f"The setting {at} is required."
    if mistake["type"] == "unexpected_keyword_argument":
        known = ", ".join(_known(mistake["loc"][:-1], kind))
        return f"Unknown setting {at}; known are {known}."
    other, _, expected = mistake["msg"].partition("Input should be ")
    if other:
        return f"The setting {at} cannot be {value!r}: {other}."
    return f"The setting {at} must be {expected.replace('an object', 'a table')}, got {value!r}."


def _known(section: Sequence[Any], kind: Any) -> list[str]:
    """Return the names of a section's settings; a number is a place in a list of sections."""
    for name in section:
        if isinstance(name, int):
            kind = typing.get_args(kind)[0]
        else:
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
