"""Distil a model without ComfyUI's server: ``python -m clear_attention.distill CONFIG``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from .config_file import read

PACK = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run a distillation and return an exit code: 0 done, 1 stopped early, 2 a mistake."""
    parser = argparse.ArgumentParser(prog="python -m clear_attention.distill", description=__doc__)
    parser.add_argument("config", type=Path, help="TOML file that describes the run")
    parser.add_argument("--comfyui", type=Path, help="folder of ComfyUI, in place of the file's")
    parser.add_argument(
        "--export",
        type=Path,
        help="write the file of this state, such as state-0000250.safetensors",
    )
    parser.add_argument("--cpu", action="store_true", help="run on the CPU")
    options = parser.parse_args(arguments)
    try:
        config = read(options.config)
        folder = options.comfyui or config.comfyui or PACK.parents[1]
        command = open_host(folder.resolve(), config.base_directory, options.cpu)
        if options.export:
            return int(command.export_state(config, options.export))
        return int(command.run(config))
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def open_host(folder: Path, base_directory: Path | None, cpu: bool) -> Any:
    """Make ComfyUI's modules importable and return the pack's command for it.

    Args:
        folder: ComfyUI's folder.
        base_directory: Where its models and custom nodes are; None for its own folder.
        cpu: Run on the CPU.

    Raises:
        ValueError: There is no ComfyUI.
    """
    launch = importlib.import_module("clear_attention.comfyui.headless")
    launch.put_host_first(folder)
    launch.prepare(cpu, base_directory)
    return importlib.import_module("clear_attention.comfyui.distill.command")


if __name__ == "__main__":
    raise SystemExit(main())
