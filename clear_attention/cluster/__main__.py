"""Join a machine to a cluster: ``python -m clear_attention.cluster --address HOST:PORT``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]

HEADLESS = "clear_attention.comfyui.headless"
JOIN = "clear_attention.comfyui.parallel.cluster.join"
"""The host's side of the command: imported by name, once ComfyUI can be imported."""


def main(arguments: list[str] | None = None) -> int:
    """Check this machine and start Ray on it; return an exit code: 0 joined, 2 a mistake."""
    parser = argparse.ArgumentParser(prog="python -m clear_attention.cluster", description=__doc__)
    parser.add_argument("--address", required=True, help="host:port of Ray on the first machine")
    parser.add_argument("--comfyui", type=Path, help="folder of ComfyUI, if not two above the pack")
    parser.add_argument("--base-directory", type=Path, help="where its models and node packs are")
    parser.add_argument("--cpu", action="store_true", help="compute on the CPU")
    parser.add_argument("--check", action="store_true", help="check this machine only")
    options = parser.parse_args(arguments)
    folder = (options.comfyui or PACK.parents[1]).resolve()
    base = options.base_directory and options.base_directory.resolve()
    try:
        importlib.import_module(HEADLESS).put_host_first(folder)
        join = importlib.import_module(JOIN)
        print("\n".join(join.facts(options.cpu, base)), flush=True)
        if options.check:
            return 0
        return int(join.start(options.address, folder, base, options.cpu))
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
