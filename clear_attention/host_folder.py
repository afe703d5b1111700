"""The folder of a ComfyUI: how commands and workers, which it did not start, import its modules."""

from __future__ import annotations

import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
"""The folder of this pack."""


def put_host_first(folder: Path) -> None:
    """Make ComfyUI's modules importable, and this pack's behind them.

    Args:
        folder: ComfyUI's.

    Raises:
        ValueError: There is no ComfyUI.
    """
    if not (folder / "comfy").is_dir():
        raise ValueError(f"{folder} is no ComfyUI: name its folder with --comfyui.")
    # The pack has a `nodes` of its own, which must not hide the host's.
    hidden = {PACK, Path.cwd()}
    rest = [entry for entry in sys.path if Path(entry).resolve() not in hidden]
    sys.path[:] = [str(folder), *rest, str(PACK)]
