"""The code that Triton compiles for NVIDIA cards, executed without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not made for this machine")

from ptx.faults import FAULTS, Fault
from ptx.sweep import MOST_EPS
from ptx.trial_table import GPUS, spread

pytestmark = pytest.mark.long

HERE = Path(__file__).parent

Found = dict[str, Any]


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-kernels")
        trials = [(gpu, trial.name) for gpu in GPUS for trial in spread(gpu, every)]
        metafunc.parametrize(("gpu", "name"), trials, ids=lambda part: part)


@pytest.fixture(scope="module")
def printed(
    interpreter: Path, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Found]]:
    """What trials and faults came to, in a process whose Triton compiles.

    Triton finds again what it compiled for the tests before, if kernels and options are the same.
    """
    cache = getattr(pytestconfig, "cache", None)  # or it is switched off
    kept = cache.mkdir("ptx") if cache else tmp_path_factory.mktemp("ptx")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(HERE / "both.py"), str(interpreter), str(kept)]
    if pytestconfig.getoption("--all-kernels"):
        command.append("--all-kernels")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def results(printed) -> dict[tuple[str, str], Found]:
    """What each trial came to, by class of GPU and name."""
    trials = [line["trial"] for line in printed if "trial" in line]
    return {(one["gpu"], one["name"]): one for one in trials}


@pytest.fixture(scope="module")
def planted(printed) -> dict[tuple[str, str], list[Found]]:
    """What was noticed of each fault, by its name and kernel."""
    faults = [line["fault"] for line in printed if "fault" in line]
    return {(one["name"], one["kernel"]): one["versions"] for one in faults}


def test_compiled_kernels_are_as_exact_as_their_rounding(gpu, name, results):
    found = results[gpu, name]
    # The output is rounded once, at most half an eps, and so are probabilities, whose errors in a
    # weighted mean of values cancel out in part. Gradients likewise, given that output.
    assert max(found["errors"].values()) <= MOST_EPS, found["errors"]
    assert found["lse_error"] <= found["lse_allowed"]


def test_compiled_kernels_keep_to_their_tensors_and_barriers(gpu, name, results):
    assert results[gpu, name]["findings"] == []


@pytest.mark.parametrize("gpu", GPUS)
def test_every_kernel_is_executed(gpu, results):
    kernels = [found["kernels"] for (one, _), found in results.items() if one == gpu]
    executed = {kernel for names in kernels for kernel in names}
    rounded = {"round_rows"} if any(trial.rounded for trial in spread(gpu)) else set()
    assert executed == {"forward", "backward_queries", "backward_keys"} | rounded


def test_trials_are_what_their_names_say(results):
    assert results["sm_80", "splits, bfloat16, 128"]["splits"] > 1
    assert [name for (_, name), found in results.items() if found["far"]] == ["far, float16, 64"]


def test_a_band_runs_what_was_compiled_for_all_rows(results):
    assert results["sm_80", "plain, bfloat16, 64, trained"]["compiled"] > 0
    assert results["sm_80", "a band, bfloat16, 64, trained"]["compiled"] == 0


def test_no_kernel_is_compiled_twice_to_the_same_code(printed):
    loaded, compiled = next(
        (line["loaded"], line["compiled"]) for line in printed if "loaded" in line
    )
    assert loaded == compiled > 0


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
