"""Commands that take a TOML file and run inside ComfyUI, without its server."""

from __future__ import annotations

import importlib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..atomic_files import reason_of

PACK = Path(__file__).resolve().parents[2]

HEADLESS = "clear_attention.comfyui.headless"
"""What makes the host importable: by name, as is the host's side of each command."""


def parser_of(module: str, about: str | None) -> ArgumentParser:
    """Return what reads the arguments of a command, which may add its own.

    Args:
        module: Name of its module, for its help.
        about: What it does.
    """
    parser = ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("config", type=Path, help="TOML file that describes the run")
    parser.add_argument("--comfyui", type=Path, help="folder of ComfyUI, in place of the file's")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU")
    return parser


def run_command(
    parser: ArgumentParser,
    read: Callable[[Path], Any],
    hosts_side: str,
    arguments: list[str] | None,
    act: Callable[[Any, Any, Namespace], int],
) -> int:
    """Run a command and return an exit code: 0 done, 1 stopped early, 2 a mistake.

    Args:
        parser: See `parser_of`.
        read: Reads its settings, which name ``comfyui`` and ``base_directory``.
        hosts_side: Name of the module for which ComfyUI is made importable.
        arguments: Of the command line; None for the process's.
        act: Takes that module, the settings and the options, and returns the exit code.
    """
    options = parser.parse_args(arguments)
    try:
        config = read(options.config)
        folder = options.comfyui or config.comfyui or PACK.parents[1]
        command = open_host(hosts_side, folder.resolve(), config.base_directory, options.cpu)
        return act(command, config, options)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"{parser.prog}: {_sentence(error)}", file=sys.stderr)
        return 2


def _sentence(error: Exception) -> str:
    """Return an error as a sentence; those of the system have a number and a name in theirs."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used ({reason_of(error)})."
    return str(error)


def open_host(hosts_side: str, folder: Path, base_directory: Path | None, cpu: bool) -> Any:
    """Make ComfyUI's modules importable and return the host's side of a command.

    Args:
        hosts_side: Name of its module.
        folder: ComfyUI's folder.
        base_directory: Where its models and custom nodes are; None for its own folder.
        cpu: Run on the CPU.

    Raises:
        ValueError: There is no ComfyUI.
    """
    headless = importlib.import_module(HEADLESS)
    headless.put_host_first(folder)
    headless.prepare(cpu, base_directory)
    return importlib.import_module(hosts_side)
