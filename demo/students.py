"""The demo's students: which files there are, and for which windows; its LoRA; what it has seen."""

from __future__ import annotations

from pathlib import Path

TEACHING = Path(__file__).with_name("teaching")  # how they are trained, and on which prompts

STUDENTS = {  # file -> radius and pool factor in tokens
    "clear_demo_local_4.safetensors": (4, 0),
    "clear_demo_local_8.safetensors": (8, 0),
    "clear_demo_local_4_down_4.safetensors": (4, 4),
}
STUDENT = "clear_demo_local_8.safetensors"  # where one is enough
LORA = "lora_demo_cyanotype.safetensors"
TRAINED_PX = 384  # edge of most pictures in training, and of the parts seen of larger ones
GUIDANCE = 3.5  # the only one in training


def window_name(radius: int, pool_factor: int = 0) -> str:
    """Name a window in tables."""
    return f"r = {radius}" + (f", pooled by {pool_factor}" if pool_factor else "")
