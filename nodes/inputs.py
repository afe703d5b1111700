"""What several nodes share: inputs, categories, and what only newer hosts know of a node."""

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

from ..clear_attention.backends import BACKENDS, in_words

CATEGORY = "model/patch/CLEAR"
MEASURING = "model/patch/CLEAR/measure"
UPSCALING = "image/upscaling"
TRAINING = "model/training"

ADVANCED: dict[str, Any] = (
    {"advanced": True} if "advanced" in inspect.signature(io.Int.Input).parameters else {}
)
"""Folds an input away until it is asked for; hosts before 0.9 show all of them."""

SLIDER = io.NumberDisplay.slider


def found_as(words: str) -> dict[str, Any]:
    """Return a schema's argument for what people type to find the node, where the host has it.

    Args:
        words: With commas between them.
    """
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return {"search_aliases": words.split(", ")} if "search_aliases" in known else {}


def model_input() -> io.Model.Input:
    """Return the input for the model to patch."""
    return io.Model.Input(
        "model", tooltip="The diffusion model. It stays as it is; a patched copy is returned."
    )


def radius_input(tooltip: str, *, or_zero: bool = False) -> io.Int.Input:
    """Return the input for a window's radius in tokens.

    Args:
        tooltip: What it does in this node.
        or_zero: Whether 0 stands for a radius that is found elsewhere, and is the default.
    """
    least, default = (0, 0) if or_zero else (1, 16)
    return io.Int.Input("radius", default=default, min=least, max=512, tooltip=tooltip)


def backend_input() -> io.Combo.Input:
    """Return the choice of a backend."""
    return io.Combo.Input(
        "backend",
        options=["auto", *BACKENDS],
        default="auto",
        tooltip=(
            "How the attention is computed; the result is the same. auto picks the fastest that "
            f"this machine can run. {in_words()}"
        ),
        **ADVANCED,
    )
