"""Execute the Triton backend's PTX without a GPU, and print what came out.

    python3 tests/ptx/sweep.py --gpu sm_80          what the tests run for a class of GPU
    python3 tests/ptx/sweep.py --all                every combination, for every class
    python3 tests/ptx/sweep.py --all --only pooled  those whose name has this in it

Prints one line per trial, with `--json` as JSON; the exit status tells whether all were right.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from ptx.driver import Machine, install
from ptx.library import Library, build
from ptx.trial_table import GPUS, spread, sweep
from ptx.trials import Outcome, Trial, roles, run

MOST_EPS = 1.0


def facts(trial: Trial, outcome: Outcome) -> dict[str, Any]:
    """Describe how a trial went, ready for JSON."""
    findings = [
        f"{launched.kernel}: {finding}"
        for launched in outcome.launched
        for finding in launched.run.findings
    ]
    notes = [text for text in findings if ": note: " in text]
    return {
        "gpu": trial.gpu,
        "name": trial.name,
        "errors": outcome.errors,
        "of_exact_output": outcome.of_exact_output,
        "lse_error": outcome.lse_error,
        "lse_allowed": outcome.lse_allowed,
        "findings": [text for text in findings if text not in notes],
        "notes": notes,
        "kernels": sorted({launched.kernel for launched in outcome.launched}),
        "splits": max(launched.grid[2] for launched in outcome.launched),
        "far": any("i64" in launched.types.values() for launched in outcome.launched),
        "steps": sum(launched.run.steps for launched in outcome.launched),
    }


def tried(trial: Trial, machine: Machine) -> dict[str, Any]:
    """Run a trial and describe it, with how many kernels were compiled for it."""
    before = machine.compiled
    return facts(trial, run(trial, machine)) | {"compiled": machine.compiled - before}


def is_right(found: dict[str, Any]) -> bool:
    """Tell whether numbers are within what rounding explains, and no access was wrong."""
    exact = max(found["errors"].values()) <= MOST_EPS
    return exact and found["lse_error"] <= found["lse_allowed"] and not found["findings"]


def trials(arguments: argparse.Namespace) -> Iterator[Trial]:
    """Go through the trials that were asked for."""
    for gpu in GPUS if arguments.gpu is None else (arguments.gpu,):
        for trial in sweep(gpu) if arguments.all else spread(gpu):
            if arguments.only in trial.name:
                yield trial


def show(found: dict[str, Any]) -> None:
    """Print one line for a person, and what was wrong."""
    errors = " ".join(f"{name} {error:.2f}" for name, error in found["errors"].items())
    if found["of_exact_output"]:
        errors += f" (of the exact output {max(found['of_exact_output'].values()):.2f})"
    verdict = "ok  " if is_right(found) else "BAD "
    lse = f"lse {found['lse_error']:.1e} of {found['lse_allowed']:.1e}"
    print(f"{verdict}{found['gpu']:7}{found['name']:66}{errors} eps, {lse}", flush=True)
    for text in found["findings"]:
        print("    " + text)


def main() -> int:
    """Run trials and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gpu", choices=GPUS, help="one class of GPU only")
    parser.add_argument("--all", action="store_true", help="every combination; takes long")
    parser.add_argument("--only", default="", help="trials whose name has this in it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--library", type=Path, help="a built interpreter; built if not given")
    parser.add_argument("--cache", type=Path, help="folder that keeps what Triton compiles")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # its tensors are small: threads would only wait for each other
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Library(arguments.library or build(Path(folder))), roles)
        install(machine, arguments.cache or Path(folder))
        wrong = 0
        for trial in trials(arguments):
            found = tried(trial, machine)
            print(json.dumps(found), flush=True) if arguments.json else show(found)
            wrong += not is_right(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
