"""The demo's diffusion model on disk."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

MODELS = Path(__file__).resolve().parents[1] / "models"
TEACHER = "flux_demo.safetensors"


def base_weights() -> dict[str, Tensor]:
    """Read the demo's diffusion model, bfloat16 in FLUX's own names."""
    return load_file(MODELS / TEACHER)
