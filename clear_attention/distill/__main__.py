"""Distil a model without ComfyUI's server: ``python -m clear_attention.distill CONFIG``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from ..config.command import parser_of, run_command
from .config import RunConfig
from .config_file import read


def main(arguments: list[str] | None = None) -> int:
    """Run a distillation and return an exit code: 0 done, 1 stopped early, 2 a mistake."""
    parser = parser_of("clear_attention.distill", __doc__)
    parser.add_argument(
        "--export",
        type=Path,
        help="write the file of this state, such as state-0000250.safetensors",
    )
    hosts_side = "clear_attention.comfyui.distill.command"
    return run_command(parser, read, hosts_side, arguments, _act)


def _act(command: Any, config: RunConfig, options: Namespace) -> int:
    if options.export:
        return int(command.export_state(config, options.export))
    return int(command.run(config))


if __name__ == "__main__":
    raise SystemExit(main())
