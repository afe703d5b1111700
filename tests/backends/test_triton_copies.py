"""Two copies of the library in one process, as a host has that finds it in two places."""

from __future__ import annotations

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
import gc, importlib, sys
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
for name in ("tiles", "tiles_backward", "tiles_int8"):
    print(len({id(getattr(module, name)) for module in modules}))
"""


def operators_in_one_process(folder: Path, *copies: str) -> list[int]:
    """Call each copy's attention in turn; count the different operators of each kind."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *copies],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [int(line) for line in done.stdout.split()]


def copy(folder: Path, name: str) -> Path:
    target = folder / name / "clear_attention"
    shutil.copytree(LIBRARY, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_equal_copies_share_their_operators(tmp_path):
    for name in ("one", "other"):
        copy(tmp_path, name)
    assert operators_in_one_process(tmp_path, "one", "other") == [1, 1, 1]


def test_copies_that_differ_have_operators_of_their_own(tmp_path):
    copy(tmp_path, "one")
    changed = copy(tmp_path, "other") / "backends" / "triton" / "passes.py"
    changed.write_text(changed.read_text(encoding="utf-8") + "\n# newer\n", encoding="utf-8")
    assert operators_in_one_process(tmp_path, "one", "other") == [2, 2, 2]
