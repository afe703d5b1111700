"""Two copies of the library in one process, as a host has that finds it in two places."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not made for this machine")
if torch.cuda.is_available():
    pytest.skip("the kernels run on the GPU: see test_cuda.py", allow_module_level=True)

LIBRARY = Path(__file__).parents[2] / "clear_attention"

SCRIPT = """
import gc, importlib, json, sys
import torch
libraries = [importlib.import_module(f"{name}.clear_attention") for name in sys.argv[1:]]
q = torch.randn(1, 1, 12, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
found = []
for library in [*libraries, *libraries, libraries[0]]:
    layout, window = library.TokenLayout(3, 3, 3), library.Window(2)
    out = library.attention(q, q, q, layout, window, backend="triton")
    found.append(torch.cat([out, *torch.autograd.grad(out.square().sum(), q)]))
    gc.collect()
assert all(torch.equal(one, found[0]) for one in found)
modules = [library.backends.triton.operators for library in libraries]
kinds = ("tiles", "tiles_backward", "tiles_int8")
operators = [[getattr(module, name) for module in modules] for name in kinds]
print(json.dumps([[[one is each for each in row].index(True) for one in row] for row in operators]))
"""


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """Return whose operator each copy has, by kind: of a copy, an equal one and a changed one.

    A single process calls the attention of all in turn.
    """
    folder = tmp_path_factory.mktemp("copies")
    names = ("one", "equal", "changed")
    copies = [copy(folder, name) for name in names]
    changed = copies[-1] / "backends" / "triton" / "passes.py"
    changed.write_text(changed.read_text(encoding="utf-8") + "\n# newer\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *names],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def copy(folder: Path, name: str) -> Path:
    target = folder / name / "clear_attention"
    shutil.copytree(LIBRARY, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_equal_copies_share_their_operators(owners):
    assert [(one, equal) for one, equal, _ in owners] == [(0, 0)] * 3


def test_copies_that_differ_have_operators_of_their_own(owners):
    assert [changed for *_, changed in owners] == [2] * 3
