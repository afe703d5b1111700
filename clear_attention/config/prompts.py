"""Lists of prompts: a text with one per line."""

from __future__ import annotations

from pathlib import Path

from ..atomic_files import reason_of
from .bounds import ConfigError


def read_prompts(path: Path) -> list[str]:
    """Read one prompt per line; empty lines do not count.

    Raises:
        ConfigError: There are none, or the file is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"The prompts cannot be read, {path} ({reason_of(error)}): name a text file with one "
            "prompt per line."
        ) from error
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
