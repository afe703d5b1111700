"""The code that Triton compiles for NVIDIA cards, executed without one."""

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

from ptx.faults import FAULTS, Fault
from ptx.sweep import MOST_EPS
from ptx.trial_table import GPUS, spread

HERE = Path(__file__).parent
TRIALS = [(gpu, trial.name) for gpu in GPUS for trial in spread(gpu)]

Found = dict[str, Any]


def printed(script: str, *arguments: object) -> list[Found]:
    """Run a script in a process whose Triton compiles, and read its lines."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr[-3000:]
    return lines


@pytest.fixture(scope="module")
def trials_on(interpreter: Path) -> Callable[[str], dict[str, Found]]:
    """Return what a class of GPU's trials came to, by name."""
    known: dict[str, dict[str, Found]] = {}

    def of(gpu: str) -> dict[str, Found]:
        if gpu not in known:
            lines = printed("sweep.py", "--json", "--gpu", gpu, "--library", interpreter)
            known[gpu] = {line["name"]: line for line in lines}
        return known[gpu]

    return of


@pytest.fixture(scope="module")
def planted(interpreter: Path) -> dict[tuple[str, str], list[Found]]:
    """What was noticed of each fault, by its name and kernel."""
    lines = printed("faults.py", "--library", interpreter)
    return {(line["name"], line["kernel"]): line["versions"] for line in lines}


@pytest.mark.parametrize(("gpu", "name"), TRIALS, ids=lambda part: part)
def test_compiled_kernels_are_as_exact_as_their_rounding(gpu, name, trials_on):
    found = trials_on(gpu)[name]
    # The output is rounded once, at most half an eps, and so are probabilities, whose errors in a
    # weighted mean of values cancel out in part.
    assert max(found["errors"].values()) <= MOST_EPS, found["errors"]
    assert found["lse_error"] <= found["lse_allowed"]


@pytest.mark.parametrize(("gpu", "name"), TRIALS, ids=lambda part: part)
def test_compiled_kernels_keep_to_their_tensors_and_barriers(gpu, name, trials_on):
    assert trials_on(gpu)[name]["findings"] == []


@pytest.mark.parametrize("gpu", GPUS)
def test_every_kernel_is_executed(gpu, trials_on):
    executed = {kernel for found in trials_on(gpu).values() for kernel in found["kernels"]}
    rounded = {"round_rows"} if any(trial.rounded for trial in spread(gpu)) else set()
    assert executed == {"forward", "backward_queries", "backward_keys"} | rounded


def test_trials_are_what_their_names_say(trials_on):
    found = {name: facts for gpu in GPUS for name, facts in trials_on(gpu).items()}
    assert found["splits, bfloat16, 128"]["splits"] > 1
    assert {name for name, facts in found.items() if facts["far"]} == {"far, float16, 64"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kernel}: {fault.name}")
def test_a_fault_in_the_compiled_code_is_noticed(fault: Fault, planted):
    versions = planted[fault.name, fault.kernel]
    assert versions
    for version in versions:
        if fault.expected:
            named = [kind for kind in version["kinds"] if kind.startswith(fault.expected)]
            assert named, version
        else:
            assert version["error"] > MOST_EPS, version
