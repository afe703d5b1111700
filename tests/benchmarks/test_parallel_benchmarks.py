"""The benchmarks of ranks in tiny sizes: what they compare, mark and leave out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.parallel import Result, device_lists, expected_seconds

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
HOST = Path(os.environ.get("COMFYUI_HOST", ROOT / ".host" / "ComfyUI-0.3.75"))
CPU = torch.device("cpu")

MEASURED = """
import argparse, json, sys
sys.path.insert(0, {root!r})
import dataclasses, torch
from pathlib import Path
from benchmarks.cpu.host import import_host
import_host(Path({host!r}), True, 1)
from benchmarks.cpu import parallel as on_cores
from benchmarks.gpu import parallel
from benchmarks.gpu.measure import Budget

scope = dataclasses.replace(parallel.SMALL, dtype=torch.float32)
cpu = torch.device("cpu")
late = parallel.measure(cpu, scope, Budget(0))[1]
distance = parallel.distance
parallel.distance = lambda latent, expected: distance(latent + 1e-3, expected)
_, wrong = parallel.measure(cpu, dataclasses.replace(scope, edges=(64,)), Budget(30))
on_cores.CHECKED_PX = 128
table = on_cores.report(Path({host!r}), [128], 1, 0.25)
from benchmarks import ranks
moved = ranks.distance
ranks.distance = lambda latent, expected: moved(latent + 1e-3, expected)
try:
    on_cores.check(on_cores.narrow_flux())
    refused = ""
except SystemExit as error:
    refused = str(error)
print(json.dumps([[each.told for each in late], [each.told for each in wrong], table, refused]))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    if not (HOST / "comfy").is_dir():
        pytest.skip(f"needs a ComfyUI: {HOST} has none, set COMFYUI_HOST to its folder")
    environment = {
        **os.environ,
        "COMFYUI_HOST": str(HOST),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=1800
    )


@pytest.fixture(scope="module")
def small() -> subprocess.CompletedProcess[str]:
    """The part of the GPU benchmark about several devices, in tiny sizes, in this Python."""
    script = str(ROOT / "benchmarks" / "gpu" / "run.py")
    return run(script, "--small", "--here", "--only", "parallel", "--minutes", "30")


@pytest.fixture(scope="module")
def spoiled() -> tuple[list[str], list[str], str, str]:
    """Cells without time, cells of wrong pictures, the CPU's table, its refusal of wrong ranks."""
    out = run("-c", MEASURED.format(root=str(ROOT), host=str(HOST)))
    assert out.returncode == 0, out.stderr
    return tuple(json.loads(out.stdout.splitlines()[-1]))


def rows(text: str, first: str) -> list[dict[str, str]]:
    """Read the rows of the table whose first column has this name."""
    found, head = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| "):
            head = head if line.startswith("|") else []
        elif cells[0] == first:
            head = cells
        elif head:
            found.append(dict(zip(head, cells, strict=True)))
    return found


def test_the_small_run_compares_ranks_with_one_device(small):
    assert small.returncode == 0, small.stderr
    assert "Tiny sizes: these times say nothing about any machine." in small.stdout
    table = rows(small.stdout, "px")
    assert [(row["px"], row["devices"]) for row in table] == [
        (size, devices) for size in ("64 x 64", "128 x 128") for devices in ("cpu", "cpu,cpu")
    ]
    for row in table:
        assert float(row["s/step"]) > 0, row
    for row in table[1::2]:
        assert float(row["times faster"]) > 0
        assert 0 <= float(row["error"]) < 1e-6  # float32 on both sides
        assert len(row["MB received"].split(" / ")) == len(row["ms waited"].split(" / ")) == 2
    assert all(row["error"] == row["ms waited"] == "-" for row in table[::2])


def test_the_copies_of_a_single_device_stay_within_it(small):
    (row,) = rows(small.stdout, "from")
    assert (row["from"], row["to"], row["arrives whole"]) == ("cpu", "cpu", "yes")
    assert float(row["GB/s one way"]) > 0
    assert float(row["GB/s while as much comes back"]) > 0


def test_nothing_is_started_when_the_time_is_over(spoiled):
    assert set(spoiled[0]) == {"not run (time)"} and len(spoiled[0]) == 4


def test_a_picture_of_ranks_that_differs_is_marked_and_not_timed(spoiled):
    one, two = spoiled[1]
    assert float(one) > 0
    assert two == "**WRONG**"


def test_two_cores_are_compared_with_one(spoiled):
    (row,) = rows(spoiled[2], "pixels")
    assert row["pixels"] == "128 x 128" and row["goal"] == "-"
    faster = float(row["one rank"]) / float(row["two ranks"])
    assert float(row["faster"].removesuffix(" x")) == pytest.approx(faster, rel=0.2)
    assert "whose load was 0.25 before the run" in spoiled[2]


def test_ranks_that_change_the_picture_are_not_timed_on_a_cpu(spoiled):
    assert spoiled[3].startswith("Two ranks change the picture by ")


def test_a_run_that_would_end_too_late_is_expected_from_the_size_before():
    known = [
        Result(2048, 16, "cuda:0", 2.0),
        Result(2048, 16, "cuda:0,cuda:1", 1.0),
        Result(2048, 8, "cuda:0", 9.0),
        Result(4096, 16, "cuda:0", 8.0),
    ]
    assert expected_seconds(known, Result(4096, 16, "cuda:0,cuda:1")) == 3 * 1.5 * 4
    assert expected_seconds(known, Result(8192, 16, "cuda:0")) == 3 * 8 * 1.5 * 4
    assert expected_seconds(known, Result(2048, 32, "cuda:0")) == 0


def test_several_cards_are_tried_one_after_the_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert device_lists(torch.device("cuda")) == [
        "cuda:0",
        "cuda:0,cuda:0",
        "cuda:0,cuda:1",
        "cuda:0,cuda:1,cuda:2",
    ]
    assert device_lists(CPU) == ["cpu", "cpu,cpu"]
