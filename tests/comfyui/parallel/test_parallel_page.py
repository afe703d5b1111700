"""The page about several GPUs lists every reason for which one computes a picture."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
REASONS = ROOT / "clear_attention" / "comfyui" / "parallel" / "one_device.py"
PAGE = ROOT / "docs" / "parallel.md"


def reasons() -> list[str]:
    """Return the fixed words of each sentence in the module of reasons, remedies apart."""
    tree = ast.parse(REASONS.read_text(encoding="utf-8"))
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    pieces = [
        piece.value
        for value in returned
        for piece in (value.values if isinstance(value, ast.JoinedStr) else [value])
        if isinstance(piece, ast.Constant) and isinstance(piece.value, str)
    ]
    words = [piece.split(" (")[0].split(". ")[0].strip() for piece in pieces]
    return [each for each in words if len(each) > len("where")]


def test_there_are_reasons_to_be_listed():
    assert len(reasons()) > 10


@pytest.mark.parametrize("reason", reasons())
def test_each_reason_is_on_the_page(reason):
    assert reason in PAGE.read_text(encoding="utf-8")
