"""CLEAR attention on a GPU: one layer against its competitors, then a whole step of FLUX.1 [dev].

    python3 benchmarks/gpu/run.py
    python3 benchmarks/gpu/run.py --only parallel

Checks itself, downloads no weights, takes less than ten minutes on an H100. Two GPUs or more share
steps in a third part, of as many minutes again; by its name it also runs on one GPU. `--small` runs
tiny sizes on any machine: that shows that it works; its times mean nothing and are not kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.environment import reexec_in_venv
from tools.host import DEFAULT_VERSION, HOSTS, Host, users_host

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu.measure import Budget

HALVES = ("attention", "step")
PARALLEL = "parallel"
# Of the time; the rest is the step's.
ATTENTION_SHARE = 0.4


def main() -> int:
    """Run the benchmark; the exit code is 1 if a result is wrong, 2 without a GPU."""
    options = _parser().parse_args()
    host = _host_at_hand() if options.here else reexec_in_venv()
    return run(options, host)


def run(options: argparse.Namespace, host: Path | None) -> int:
    """Run the parts that are asked for, print them, write those of a real run down."""
    import torch

    if not options.small and not torch.cuda.is_available():
        print("This benchmark needs a GPU; --small shows in tiny sizes that it works without one.")
        return 2
    if not torch.cuda.is_available():  # before Triton is loaded: its interpreter runs anywhere
        os.environ["TRITON_INTERPRET"] = "1"
    from benchmarks.gpu.measure import Budget

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    halves = HALVES if options.only is None else (options.only,)
    total = Budget(options.minutes)
    mistakes: list[str] = []
    if "attention" in halves:
        share = ATTENTION_SHARE if len(halves) > 1 else 1.0
        body, wrong = attention_half(device, options.small, Budget(share * options.minutes))
        mistakes += wrong
        publish("gpu-attention", body, options.small)
    if "step" in halves:
        body, wrong = step_half(device, options.small, total, host)
        mistakes += wrong
        publish("gpu-step", body, options.small)
    if options.only == PARALLEL or (options.only is None and torch.cuda.device_count() > 1):
        body, wrong = parallel_part(device, options.small, Budget(options.minutes), host)
        mistakes += wrong
        publish("gpu-parallel", body, options.small)
    for mistake in mistakes:
        print(f"WRONG: {mistake}", file=sys.stderr)
    return 1 if mistakes else 0


def attention_half(device: torch.device, small: bool, budget: Budget) -> tuple[str, list[str]]:
    """Return the tables of one layer as Markdown, and what is wrong in them."""
    import torch

    from benchmarks.gpu import attention, attention_table, contestants

    scope = attention.SMALL if small else attention.Scope()
    if device.type == "cpu":
        scope = dataclasses.replace(scope, dtype=torch.float32)
    results = attention.measure(device, scope, budget, contestants.CONTESTANTS)
    table = attention_table.markdown(results, scope, device)
    return table, attention_table.mistakes(results)


def step_half(
    device: torch.device, small: bool, budget: Budget, host: Path | None
) -> tuple[str, list[str]]:
    """Return the table of a whole step as Markdown, and what is wrong in it."""
    if host is None:
        return "The step needs a ComfyUI: set COMFYUI to its folder.", []
    import torch

    from benchmarks.cpu.host import import_host

    import_host(host, cpu=device.type == "cpu", threads=None)
    from benchmarks.gpu import step, step_table
    from benchmarks.gpu.measure import short_reason

    scope = step.SMALL if small else step.Scope()
    if device.type == "cpu":
        scope = dataclasses.replace(scope, dtype=torch.float32)
    try:
        results = step.measure(device, scope, budget)
    except Exception as error:  # the model may not fit; the first half is there all the same
        return f"The model could not be built: {short_reason(error)}.", []
    table = step_table.markdown(results, scope, Host(host).version)
    return table, step_table.mistakes(results)


def parallel_part(
    device: torch.device, small: bool, budget: Budget, host: Path | None
) -> tuple[str, list[str]]:
    """Return the tables of shared steps as Markdown, and what is wrong in them."""
    if host is None:
        return "Shared steps need a ComfyUI: set COMFYUI to its folder.", []
    import torch

    from benchmarks.cpu.host import import_host

    import_host(host, cpu=device.type == "cpu", threads=None)
    from benchmarks.gpu import parallel, parallel_table
    from benchmarks.gpu.measure import short_reason

    scope = parallel.SMALL if small else parallel.Scope()
    if device.type == "cpu":
        scope = dataclasses.replace(scope, dtype=torch.float32)
    try:
        copies, results = parallel.measure(device, scope, budget)
    except Exception as error:  # the model may not fit; the other parts are there all the same
        return f"The model could not be built: {short_reason(error)}.", []
    table = parallel_table.markdown(copies, results, scope, Host(host).version)
    return table, parallel_table.mistakes(results)


def publish(name: str, body: str, small: bool) -> None:
    """Write a real run down; print one in tiny sizes only, marked as such."""
    import torch

    versions = f"triton {_triton_version()}, CUDA {torch.version.cuda}, HIP {torch.version.hip}"
    if small:
        print(f"Tiny sizes: these times say nothing about any machine. {versions}\n\n{body}\n")
        return
    from benchmarks.results_file import write

    try:
        write(name, f"Further versions: {versions}.\n\n{body}")
    except Exception as error:  # a full disk, a missing git: the minutes are not to be lost
        print(f"{body}\n\nNot written down: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes, on any machine")
    parser.add_argument("--only", choices=(*HALVES, PARALLEL), help="one part of the benchmark")
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="what would take longer is not run"
    )
    parser.add_argument(
        "--here",
        action="store_true",
        help="run in this Python as it is, set nothing up; COMFYUI names the host of the step",
    )
    return parser


def _host_at_hand() -> Path | None:
    """Find a ComfyUI without fetching one."""
    if os.environ.get("COMFYUI_HOST"):
        return Path(os.environ["COMFYUI_HOST"])
    host = users_host() or Host(HOSTS / f"ComfyUI-{DEFAULT_VERSION}")
    return host.folder if host.folder.is_dir() else None


def _triton_version() -> str:
    if importlib.util.find_spec("triton") is None:
        return "not installed"
    return str(getattr(importlib.import_module("triton"), "__version__", "unknown"))


if __name__ == "__main__":
    raise SystemExit(main())
