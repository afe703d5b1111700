"""Make ComfyUI importable in a script of the demo, without its server."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.host import ROOT


def enter(host: Path) -> None:
    """Put ComfyUI's modules in front, run on the CPU if there is no GPU, and show it our files."""
    hidden = {"", str(ROOT), str(ROOT / "demo")}
    sys.path[:] = [str(host), *(entry for entry in sys.path if entry not in hidden), str(ROOT)]
    import torch

    from clear_attention.comfyui import headless

    headless.prepare(cpu=not torch.cuda.is_available())
    import folder_paths

    from demo.nodes.checkpoint import MODELS

    folder_paths.add_model_folder_path("clear", str(MODELS))
