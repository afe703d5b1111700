"""The benchmarks of ranks in tiny sizes: what they compare, mark and leave out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.parallel import Result, device_lists, expected_seconds

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
HOST = Path(os.environ.get("COMFYUI_HOST", ROOT / ".host" / "ComfyUI-0.3.75"))
CPU = torch.device("cpu")

# One process for all, as importing the host takes longest. First the command as a user starts it.
MEASURED = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, {root!r})
sys.argv = [{script!r}, "--small", "--here", "--only", "parallel", "--minutes", "30"]
printed, code = io.StringIO(), None
with contextlib.redirect_stdout(printed):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
import dataclasses, torch
from pathlib import Path
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
facts = dict(code=code, printed=printed.getvalue(), table=table, refused=refused)
print(json.dumps(facts | dict(late=[x.told for x in late], wrong=[x.told for x in wrong])))
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Code and text of the small command; cells without time and of wrong pictures; the CPU's."""
    if not (HOST / "comfy").is_dir():
        pytest.skip(f"needs a ComfyUI: {HOST} has none, set COMFYUI_HOST to its folder")
    environment = {
        **os.environ,
        "COMFYUI_HOST": str(HOST),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    script = ROOT / "benchmarks" / "gpu" / "run.py"
    code = MEASURED.format(root=str(ROOT), host=str(HOST), script=str(script))
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


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


def test_the_small_run_compares_ranks_with_one_device(measured):
    assert measured["code"] == 0, measured["printed"]
    assert "Tiny sizes: these times say nothing about any machine." in measured["printed"]
    table = rows(measured["printed"], "px")
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


def test_the_copies_of_a_single_device_stay_within_it(measured):
    (row,) = rows(measured["printed"], "from")
    assert (row["from"], row["to"], row["arrives whole"]) == ("cpu", "cpu", "yes")
    assert float(row["GB/s one way"]) > 0
    assert float(row["GB/s while as much comes back"]) > 0


def test_nothing_is_started_when_the_time_is_over(measured):
    assert measured["late"] == ["not run (time)"] * 4


def test_a_picture_of_ranks_that_differs_is_marked_and_not_timed(measured):
    one, two = measured["wrong"]
    assert float(one) > 0
    assert two == "**WRONG**"


def test_two_cores_are_compared_with_one(measured):
    (row,) = rows(measured["table"], "pixels")
    assert row["pixels"] == "128 x 128" and row["goal"] == "-"
    faster = float(row["one rank"]) / float(row["two ranks"])
    assert float(row["faster"].removesuffix(" x")) == pytest.approx(faster, rel=0.2)
    assert "whose load was 0.25 before the run" in measured["table"]


def test_ranks_that_change_the_picture_are_not_timed_on_a_cpu(measured):
    assert measured["refused"].startswith("Two ranks change the picture by ")


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
