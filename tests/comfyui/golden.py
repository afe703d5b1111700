"""The golden model cases as data; their manifest describes how they are fed to the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent.parent / "golden"
MODEL_CASES: list[dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text())[
    "model_cases"
]


def case_tensors(case: dict[str, Any]) -> dict[str, Tensor]:
    """Return inputs and expected velocity of a case in float32."""
    loaded = load_file(FOLDER / case["files"]["case"])
    return {name: tensor.float() for name, tensor in loaded.items()}


def needs_high_resolution(case: dict[str, Any]) -> bool:
    """Tell whether a case uses NTK positions or the proportional scale."""
    return case["proportional"] or case["ntk_factor"] != 1


def within_tolerance(actual: Tensor, expected: Tensor, tolerance: dict[str, float]) -> None:
    """Assert that a tensor is within the manifest's maximal and relative RMS error."""
    error = actual.double() - expected.double()
    assert error.abs().max() <= tolerance["max_abs"]
    assert error.norm() / expected.double().norm() <= tolerance["rel_rms"]
