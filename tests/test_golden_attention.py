"""The original code's outputs, reproduced by every backend."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from interpreted import interpreted
from safetensors.torch import load_file

from clear_attention import Pooling, TokenLayout, Window, attention, proportional_scale
from clear_attention.backends import BACKENDS

FOLDER = Path(__file__).parent / "golden"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
CASES = {case["name"]: case for case in MANIFEST["attention_cases"]}


@pytest.mark.parametrize("backend", sorted({"auto", *BACKENDS} - {"triton_int8"}))
@pytest.mark.parametrize("name", CASES)
def test_the_original_outputs_are_reproduced(name, backend):
    case = CASES[name]
    tensors = {key: tensor.float() for key, tensor in load_file(FOLDER / case["file"]).items()}
    layout = TokenLayout(case["text_length"], *case["grid"])
    factor = case["down_factor"]
    pooling = Pooling(factor, tensors["spatial_weight"]) if factor > 1 else None
    scale = None
    if case["proportional"]:
        scale = proportional_scale(layout.tokens, case["head_dim"], pooled=factor > 1)
    with interpreted() if "triton" in backend else nullcontext():
        out = attention(
            *(tensors[name] for name in "qkv"),
            layout,
            Window(case["window_size"]),
            pooling=pooling,
            scale=scale,
            backend=backend,
        )
    error = (out.transpose(1, 2).flatten(2) - tensors["out"]).abs().max()
    assert error <= case["tolerance"]["max_abs"]


def test_the_golden_files_are_unchanged():
    for name, digest in MANIFEST["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name
