"""The Triton kernels as compilers for each class of GPU make them, without one at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not made for this machine")

from backends.launches import WINDOWLESS

from clear_attention.backends.triton.configs import CONFIGS, GPUS, HEAD_DIMS, KERNELS, width_of

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).with_name("compile_kernels.py")
# Each run compiles what it executes of these (`tests/ptx`).
EXECUTED = ("sm_80", "sm_86", "sm_89", "sm_120")


def pytest_generate_tests(metafunc):
    if "gpu" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-kernels")
        metafunc.parametrize("gpu", [gpu for gpu in GPUS if every or gpu not in EXECUTED])


def test_every_class_of_gpu_has_every_kernel():
    wanted = {(kernel, width_of(dim)) for kernel in KERNELS for dim in HEAD_DIMS["cuda"]}
    lacking = {(gpu, *key) for gpu in GPUS for key in wanted - CONFIGS[gpu].keys()}
    assert lacking == {("gfx1100", "backward_queries", 128), ("gfx1100", "backward_keys", 128)}
    assert CONFIGS.keys() == GPUS.keys()


@pytest.fixture(scope="module")
def compiled(request) -> Callable[[str], list[dict[str, Any]]]:
    """Return what was compiled for a class of GPU; a single process compiles for all of them."""
    every = request.config.getoption("--all-kernels")
    asked = {item.callspec.params["gpu"]: None for item in request.session.items
             if "compiled" in item.fixturenames}  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *asked, *([] if every else ["--first"])],
        capture_output=True,
        text=True,
        env=environment,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    def of(gpu: str) -> list[dict[str, Any]]:
        assert done.returncode == 0, done.stderr[-3000:]
        return [line for line in lines if line["gpu"] == gpu]

    return of


def test_kernels_fit_the_gpu(gpu, compiled, pytestconfig):
    every = pytestconfig.getoption("--all-kernels")
    found = compiled(gpu)
    for kernel in found:
        assert kernel["shared_bytes"] <= GPUS[gpu].shared_bytes, kernel
        assert kernel["spills"] == 0, kernel
        assert kernel["products"] > 0 or kernel["kernel"] == "round_rows", f"slow: {kernel}"
    kinds = {
        (one["kernel"], one["head_dim"], one["window"], one["rounded"], str(one["config"]))
        for one in found
    }
    # Rows with a window and without; of all rows, the first ones also for large tensors.
    dims = {64, 128} if every else {one["head_dim"] for one in found}
    rows = [
        (*key, config)
        for key, configs in CONFIGS[gpu].items()
        for config in (configs if every else configs[:1])
        if key[1] in dims
    ]
    assert {kernel for kernel, _, _ in rows} == set(KERNELS)
    for kernel, head_dim, config in rows:
        for window in (False, True) if every or gpu in WINDOWLESS else (True,):
            listed = str(json.loads(json.dumps(config)))
            assert (kernel, head_dim, window, False, listed) in kinds
    assert {one["case"] for one in found} >= ({"small", "large"} if every else {"small"})
