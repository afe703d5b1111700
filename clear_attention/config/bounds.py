"""Checks of settings, each with a sentence: what was given and what is expected."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

from ..families.block_text import parse_radii

LARGEST_SEED = 2**62
LATENT_PX = 8
"""What the edges of pictures are multiples of, in pixels: a latent pixel of most families."""


class ConfigError(ValueError):
    """A setting is not usable; the message says what was given and what is expected."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a setting that is none of the known ones."""
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}.")


def at_least(section: Any, at: str, **least: float) -> None:
    """Refuse numbers that are smaller, or that are no finite numbers."""
    for name, bound in least.items():
        value = getattr(section, name)
        if not (bound <= value and math.isfinite(value)):
            finite = "" if math.isfinite(value) else " and finite"
            raise ConfigError(f"{at}.{name} must be at least {bound}{finite}, got {value}.")


def finite(name: str, value: float) -> None:
    """Refuse infinity, and what is no number."""
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value}.")


def share(name: str, value: float, *, whole: bool) -> None:
    """Refuse a number outside of 0 to 1.

    Args:
        name: Of the setting.
        value: The number.
        whole: Whether it may be 1.
    """
    if not (0 <= value < 1 or (whole and value == 1)):
        raise ConfigError(f"{name} must be in [0, 1{']' if whole else ')'}, got {value}.")


def seed(name: str, value: int) -> None:
    """Refuse a seed that is negative or too large for torch."""
    if not 0 <= value <= LARGEST_SEED:
        raise ConfigError(f"{name} must be from 0 to {LARGEST_SEED}, got {value}.")


def radii(name: str, text: str) -> None:
    """Refuse text that is no radius per block."""
    try:
        parse_radii(text, name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def loaders(given: Container[str], needed: Iterable[str]) -> None:
    """Refuse settings that lack a table for something that a node of ComfyUI loads."""
    missing = next((what for what in needed if what not in given), None)
    if missing is not None:
        raise ConfigError(f"The settings need a table loaders.{missing}: a node and its inputs.")


def sizes(name: str, values: Sequence[tuple[int, int]]) -> None:
    """Refuse an empty list of sizes, and sizes that latents cannot have.

    Args:
        name: Of the setting.
        values: Heights and widths in pixels.
    """
    if not values:
        raise ConfigError(f"{name} must have at least one height and width, it has none.")
    for edges in values:
        if any(edge < 1 or edge % LATENT_PX for edge in edges):
            raise ConfigError(
                f"{name} must be positive multiples of {LATENT_PX}, got {list(edges)}."
            )
