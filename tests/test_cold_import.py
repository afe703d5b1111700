"""The library needs torch only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

COLD_START = """
import sys

for name in {blocked!r}:
    sys.modules[name] = None  # importing it fails
sys.path.insert(0, {root!r})

import torch

before = set(sys.modules)
from clear_attention import Pooling, TokenLayout, Window, attention, proportional_scale

loaded = set(sys.modules) - before
q, k, v = torch.randn(3, 1, 2, 3 + 9 * 7, 8)
for backend in ("auto", "reference", "masked", "tiled"):
    attention(
        q, k, v, TokenLayout(3, 9, 7), Window(3), pooling=Pooling(2),
        scale=proportional_scale(66, 8), backend=backend,
    )
print(sorted(name for name in loaded if not name.startswith("clear_attention")))
"""


def test_attention_runs_without_triton_einops_xformers_and_comfyui():
    blocked = ["triton", "einops", "xformers", "comfy", "comfy_api", "folder_paths", "safetensors"]
    script = COLD_START.format(blocked=blocked, root=str(ROOT))
    # -I: neither the working folder, whose __init__.py is the host's door, nor user packages.
    result = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]", "the library loads more than itself"
