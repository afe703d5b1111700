"""Run the GPU benchmark in tiny sizes, and those of ranks; print what came of it as JSON.

First the commands as a user starts them, which import what they need themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = str(ROOT / "benchmarks" / "gpu" / "run.py")


def run(*options: str) -> dict[str, Any]:
    """Run the GPU benchmark in tiny sizes, and return its exit code and what it prints."""
    sys.argv = [COMMAND, "--small", "--here", "--minutes", "30", *options]
    printed, code = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(COMMAND, run_name="__main__")
        except SystemExit as end:
            code = end.code
    return {"code": code, "printed": printed.getvalue()}


def of_ranks() -> dict[str, Any]:
    """Return the cells of ranks without time and with a wrong picture, and what a CPU measures."""
    import torch

    from benchmarks import ranks
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
    table = on_cores.report(Path(os.environ["COMFYUI_HOST"]), [128], 1, 0.25)
    moved = ranks.distance
    ranks.distance = lambda latent, expected: moved(latent + 1e-3, expected)
    try:
        on_cores.check(on_cores.narrow_flux())
        refused = ""
    except SystemExit as error:
        refused = str(error)
    told = {"late": [x.told for x in late], "wrong": [x.told for x in wrong]}
    return {"table": table, "refused": refused, **told}


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    parallel = run("--only", "parallel")
    sys.path.append(str(ROOT / "tests"))
    importlib.import_module("interpreted")  # a third less time for Triton's interpreter
    halves = run()
    print(json.dumps({"halves": halves, "parallel": parallel, **of_ranks()}))
