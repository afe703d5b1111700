"""The models of a comparison, with the names that people read: connected, or from lines of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

from comfy.model_patcher import ModelPatcher

from ...families.block_text import parse_radii
from ..core.patch import settings_of, with_window
from ..core.settings import DEFAULT_RADIUS, WindowSettings
from ..weights.folder import SUFFIX, clear_files, fingerprint
from ..weights.loader import load_onto

LONGEST_NAME = 48
"""Letters of a name in the table; radii of many blocks are longer."""

EXAMPLE = '"8", "double 0-3: 8, single 0: 32", "clear_local_16.safetensors"'


@dataclass(frozen=True, eq=False)
class Contestant:
    """A model that paints.

    Attributes:
        name: What people read; differs from all others.
        model: A MODEL.
    """

    name: str
    model: ModelPatcher

    @property
    def is_local(self) -> bool:
        """Whether it carries a CLEAR window."""
        return settings_of(self.model).local is not None


def teacher_of(model: ModelPatcher) -> Contestant:
    """Return the model with which all others are compared."""
    return Contestant(f"model, {window_of(model)}", model)


def connected(clear_model: ModelPatcher) -> Contestant:
    """Return the connected model with CLEAR."""
    return Contestant(f"clear_model, {window_of(clear_model)}", clear_model)


def window_of(model: ModelPatcher) -> str:
    """Describe the window of a MODEL."""
    local = settings_of(model).local
    if local is None:
        return "full attention"
    pooled = f", pooled by {local.pool_factor}" if local.pool_factor > 1 else ""
    per_block = " and others per block" if local.radii else ""
    start, end = local.start_percent, local.end_percent
    part = f", {start:g} to {end:g}" if (start, end) != (0.0, 1.0) else ""
    return f"r = {local.radius}{per_block}{pooled}{part}"


def swept(model: ModelPatcher, text: str) -> list[Contestant]:
    """Return a contestant per line: a radius, a radius per block, or a file of models/clear.

    Args:
        model: On which windows and files are put; it stays as it is.
        text: Lines; empty ones do not count.

    Raises:
        ValueError: A line is none of these, or is there twice; the message names the line.
    """
    lines = [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    found: dict[str, Contestant] = {}
    for at, line in lines:
        try:
            made = contestant(model, line)
        except ValueError as error:
            raise ValueError(f"Line {at} of sweep, {line!r}: {error}") from error
        key = " ".join(line.split())
        if key in found:
            raise ValueError(f"Line {at} of sweep, {line!r}, is there already: remove one of them.")
        found[key] = made
    return without_collisions(list(found.values()))


def files_of(text: str) -> str:
    """Return what changes when a file that lines name is replaced under its name."""
    names = (line.strip() for line in text.splitlines())
    return " ".join(fingerprint(name) for name in names if name.lower().endswith(SUFFIX))


def contestant(model: ModelPatcher, line: str) -> Contestant:
    """Return what one line asks for.

    Raises:
        ValueError: It cannot be read, or does not fit the model.
    """
    if line.lower().endswith(SUFFIX):
        if line not in clear_files():
            raise ValueError(
                f"it must be a file of models/clear, which has {', '.join(clear_files())}."
            )
        return Contestant(line, load_onto(model, line))
    first, _, rest = (part.strip() for part in line.partition(","))
    if re.fullmatch(r"[1-9]\d{0,6}", first):
        return windowed(model, int(first), rest)
    if re.match(r"[A-Za-z]+[\s._:]*\d", line) and ":" in line:
        return windowed(model, DEFAULT_RADIUS, line)
    raise ValueError(
        "it must be a radius, a radius and others per block, or the name of a file in "
        f"models/clear, such as {EXAMPLE}."
    )


def windowed(model: ModelPatcher, radius: int, radii: str = "") -> Contestant:
    """Return the model behind a window, without distilled weights.

    Args:
        model: A MODEL, left as it is.
        radius: In tokens.
        radii: Other radii per block, as `parse_radii` reads them.
    """
    found = parse_radii(radii, "The radii per block")
    name = shorten(
        f"r = {radius}" + (f", {radii}" if radii else ""), LONGEST_NAME, placeholder=" ..."
    )
    return Contestant(name, with_window(model, WindowSettings(radius, radii=found)))


def without_collisions(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Return contestants whose names differ: they are the keys of the table."""
    seen: dict[str, int] = {}
    result: list[Contestant] = []
    for each in contestants:
        seen[each.name] = number = seen.get(each.name, 0) + 1
        name = each.name if number == 1 else f"{each.name} ({number})"
        result.append(Contestant(name, each.model))
    return result
