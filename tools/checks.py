"""Check lint, format, types and the direction of imports; ``--fix`` repairs what it can first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.environment import BASE, OPTIONAL, ensure, python_in, reexec_in_venv
from tools.host import ROOT

FIXES = (("ruff", "check", "--fix-only", "--quiet"), ("ruff", "format", "--quiet"))
CHECKS = {
    "lint": ("ruff", "check", "--quiet"),
    "format": ("ruff", "format", "--check", "--quiet"),
    "types": ("basedpyright", "--warnings"),
    "imports": ("lint-imports", "--no-cache"),
    "rooms": ("python", "tools/rooms.py"),
    "docs": ("python", "tools/docstrings.py"),
}
OF_THE_REGISTRY = {
    "registry": ("comfy", "--skip-prompt", "--no-enable-telemetry", "node", "validate"),
    "pack": ("comfy-test", "lint", ".", "--check", "javascript", "--strict"),
}
"""What others run on a published pack. comfy-test's other level wants ``torch.autocast`` and
``nn.Linear`` nowhere: the library and its tests run without ComfyUI.
"""
REGISTRY = ROOT / ".venv-registry"
REGISTRY_TOOLS = (OPTIONAL, "comfy-cli==1.23.0", "comfy-test==0.4.15")
"""In an environment of their own, for the many packages that they bring."""


class Outcome(NamedTuple):
    """How a check went.

    Attributes:
        name: Of `CHECKS`.
        code: Exit status of its command.
        seconds: That it took.
        text: What it has printed.
    """

    name: str
    code: int
    seconds: float
    text: str

    def report(self) -> bool:
        """Print a line, and what the check says if it failed; return whether it passed."""
        verdict = "FAILED" if self.code else "ok"
        print(f"{self.name:8} {verdict:6} {self.seconds:5.1f} s", flush=True)
        if self.code:
            print(self.text, flush=True)
        return self.code == 0


def run_checks(leave_out: Collection[str] = ()) -> list[str]:
    """Run every check, print a line about each, and return the names of those that failed.

    Args:
        leave_out: Names of checks that somebody else runs.
    """
    checks: dict[str, tuple[str, ...]] = dict(CHECKS)
    ensure(REGISTRY, "registry", REGISTRY_TOOLS, under=BASE)
    for name, command in OF_THE_REGISTRY.items():
        if found(command[0]):
            checks[name] = command
        else:
            again = f"delete {REGISTRY.name} and try again"
            print(f"{name:8} left out: {command[0]} could not be installed; {again}", flush=True)
    return [
        name
        for name, command in checks.items()
        if name not in leave_out and not outcome(name, *command).report()
    ]


def outcome(name: str, tool: str, *arguments: str) -> Outcome:
    """Run a check."""
    started = time.monotonic()
    result = subprocess.run(
        [program(tool), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return Outcome(name, result.returncode, time.monotonic() - started, result.stdout)


def program(name: str) -> str:
    """Find a command, or say what to do."""
    path = found(name)
    if path is None:
        raise SystemExit(f"{name} is missing in {BASE.name}; delete that folder and try again.")
    return path


def found(name: str) -> str | None:
    """Find a command of the base environment or of the registry's."""
    places = [str(python_in(home).parent) for home in (BASE, REGISTRY)]
    return shutil.which(name, path=os.pathsep.join(places))


if __name__ == "__main__":
    reexec_in_venv()
    if "--fix" in sys.argv[1:]:
        for tool, *arguments in FIXES:
            subprocess.run([program(tool), *arguments], cwd=ROOT)
    raise SystemExit(1 if run_checks() else 0)
