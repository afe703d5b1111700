"""The GPU benchmark in tiny sizes, run once: importing torch and the host takes longest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HOST = Path(os.environ.get("COMFYUI_HOST", ROOT / ".host" / "ComfyUI-0.3.75"))


@pytest.fixture(scope="session")
def benchmarked() -> dict[str, Any]:
    """Return what ``runs.py`` prints, in a process that has imported nothing before."""
    if not (HOST / "comfy").is_dir():
        pytest.skip(f"needs a ComfyUI: {HOST} has none, set COMFYUI_HOST to its folder")
    environment = {
        **os.environ,
        "COMFYUI_HOST": str(HOST),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(Path(__file__).with_name("runs.py"))]
    # Half a minute, but several on a machine that is busy with something else.
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"errors": done.stderr}
