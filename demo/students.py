"""The demo's students: which files there are, and for which windows; and its LoRA."""

from __future__ import annotations

from pathlib import Path

TEACHING = Path(__file__).with_name("teaching")  # how they are trained, and on which prompts

STUDENTS = {  # file -> radius and pool factor in tokens
    "clear_demo_local_4.safetensors": (4, 0),
    "clear_demo_local_8.safetensors": (8, 0),
    "clear_demo_local_4_down_4.safetensors": (4, 4),
}
LORA = "lora_demo_cyanotype.safetensors"
