"""Runs as TOML files: tables become the dataclasses of `config`, with every mistake named."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .config import ConfigError, RunConfig

Section = TypeVar("Section")


def read(path: Path) -> RunConfig:
    """Read a run from a TOML file; relative paths in it start at the file's folder.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or of another type.
    """
    try:
        tree = _toml().loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a TOML file: {error}") from error
    return build(RunConfig, tree, "", path.resolve().parent)


def read_prompts(path: Path) -> list[str]:
    """Read one prompt per line; empty lines do not count.

    Raises:
        ConfigError: There are none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"The prompts cannot be read: {error}.") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError(f"{path} must have a prompt on at least one line, it has none.")
    return prompts


def build(kind: type[Section], tree: Mapping[str, Any], at: str, base: Path) -> Section:
    """Make a dataclass from a table of settings.

    Args:
        kind: The dataclass.
        tree: Settings by field name; those left out keep their default.
        at: Where the table stands in the file, for messages.
        base: Folder at which relative paths start.

    Raises:
        ConfigError: A setting is unknown, lacking or of another type.
    """
    hints = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(tree.keys() - fields.keys())
    if unknown:
        raise ConfigError(
            f"Unknown setting {at}{unknown[0]}; known are {', '.join(sorted(fields))}."
        )
    lacking = [name for name, entry in fields.items() if name not in tree and _is_required(entry)]
    if lacking:
        raise ConfigError(f"The setting {at}{lacking[0]} is required.")
    return kind(**{name: _convert(hints[name], tree[name], f"{at}{name}", base) for name in tree})


def _convert(hint: Any, value: Any, at: str, base: Path) -> Any:
    if isinstance(hint, types.UnionType):  # X | None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(typing.cast("type[Any]", hint), value, f"{at}.", base)
    if hint is Path and isinstance(value, str):
        return base / value
    if hint is float and type(value) is int:
        return float(value)
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, list):
        inner = typing.get_args(hint)
        open_ended = inner[-1] is Ellipsis
        if open_ended or len(inner) == len(value):
            kinds = [inner[0]] * len(value) if open_ended else inner
            return tuple(_convert(k, v, at, base) for k, v in zip(kinds, value, strict=True))
    if isinstance(hint, type) and type(value) is hint:
        return value
    if origin is Mapping and isinstance(value, dict):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"The setting {at} must be of the type {wanted}, got {value!r}.")


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return entry.default is missing and entry.default_factory is missing


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
