"""Run the spread of trials, then plant all faults: one process, which compiles each kernel once.

    python3 tests/ptx/both.py LIBRARY CACHE                  what every run of the tests executes
    python3 tests/ptx/both.py LIBRARY CACHE --all-kernels    also on other classes of GPU

Prints one line of JSON per trial and fault, and how often Triton compiled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from ptx.driver import Machine, install
from ptx.faults import planted
from ptx.library import Library
from ptx.sweep import tried
from ptx.trial_table import GPUS, spread
from ptx.trials import roles


def main(library: str, cache: str, *options: str) -> None:
    """Print what each trial came to, what was noticed of each fault, and what was compiled."""
    torch.set_num_threads(1)  # its tensors are small: threads would only wait for each other
    machine = Machine(Library(Path(library)), roles)
    install(machine, Path(cache))
    for gpu in GPUS:
        for trial in spread(gpu, "--all-kernels" in options):
            print(json.dumps({"trial": tried(trial, machine)}), flush=True)
    print(json.dumps({"loaded": machine.loaded, "compiled": machine.compiled}), flush=True)
    for found in planted(machine):
        print(json.dumps({"fault": found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
