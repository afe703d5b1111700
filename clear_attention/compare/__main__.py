"""Compare CLEAR with full attention on prompts: ``python -m clear_attention.compare CONFIG``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..config import file
from ..config.command import parser_of, run_command
from .config import CompareConfig


def main(arguments: list[str] | None = None) -> int:
    """Run a comparison and return an exit code: 0 done, 1 stopped early, 2 a mistake."""
    parser = parser_of("clear_attention.compare", __doc__)
    hosts_side = "clear_attention.comfyui.compare.command"
    return run_command(parser, read, hosts_side, arguments, _act)


def _act(command: Any, config: CompareConfig, options: Namespace) -> int:
    return int(command.run(config))


def read(path: Path) -> CompareConfig:
    """Read a comparison from a TOML file; relative paths in it start at the file's folder."""
    return file.read(path, CompareConfig)


if __name__ == "__main__":
    raise SystemExit(main())
