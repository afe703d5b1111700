"""Where the ComfyUI under test lies."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST = Path(os.environ.get("COMFYUI_HOST", ROOT / ".host" / "ComfyUI-0.3.75"))
