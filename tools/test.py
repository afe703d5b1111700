"""Check and test the pack; arguments go to pytest (``python3 tools/test.py -k window -x``)."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.checks import CHECKS, outcome, run_checks
from tools.environment import reexec_in_venv
from tools.host import COMPILED, ROOT

LONGEST = "types"
"""The check that takes half a minute on one core: it runs beside the tests."""

# A test file keeps to one process, for its fixtures, and files start in the order of collection: by
# itself, xdist starts those with the fewest tests last.
ORDER = ("--dist=loadfile", "--no-loadscope-reorder")
MOST_PROCESSES = 8


def main(arguments: list[str]) -> int:
    """Run checks and pytest, and return an exit code that is zero if all went well."""
    print(f"ComfyUI: {reexec_in_venv()}", flush=True)
    with ThreadPoolExecutor(1) as pool:
        longest = pool.submit(outcome, LONGEST, *CHECKS[LONGEST])
        failed = run_checks(leave_out=(LONGEST,))
        code = run_pytest(arguments)
        if not longest.result().report():
            failed.append(LONGEST)
    if failed:
        print(f"Failed beside the tests, see above: {', '.join(failed)}")
    return int(code or bool(failed))


def run_pytest(arguments: list[str]) -> int:
    """Run pytest here, in this process.

    ``python -m pytest`` would put the repository first on the path, where its ``nodes`` hides
    ComfyUI's; so do the entries that brought this script here.
    """
    import pytest

    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tensors are tiny: processes, not threads
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # more threads than cores would all spin
    os.environ |= COMPILED
    sys.pycache_prefix, sys.dont_write_bytecode = COMPILED["PYTHONPYCACHEPREFIX"], False
    hidden = {"", str(ROOT), str(ROOT / "tools")}
    sys.path[:] = [entry for entry in sys.path if entry not in hidden]
    # A later `-n 0` wins: what --pdb needs.
    return int(pytest.main(["-n", str(processes()), *ORDER, *arguments]))


def processes() -> int:
    """Return one more than there are cores: a part of the tests waits for servers and browsers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MOST_PROCESSES, (cores or 1) + 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
