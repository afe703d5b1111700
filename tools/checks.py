"""Check lint, format, types and the direction of imports; ``--fix`` repairs what it can first."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.environment import BASE, python_in, reexec_in_venv
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
"""What others run on a published pack, where it is on the path: both bring too many packages for
ours. ruff's rules and ``tests/test_publishing.py`` look for the same. comfy-test's other level
wants ``torch.autocast`` and ``nn.Linear`` nowhere: the library and its tests run without ComfyUI.
"""


def run_checks() -> list[str]:
    """Run every check, print a line about each, and return the names of those that failed."""
    checks: dict[str, tuple[str, ...]] = dict(CHECKS)
    for name, command in OF_THE_REGISTRY.items():
        if shutil.which(command[0]):
            checks[name] = command
        else:
            print(f"{name:8} left out: {command[0]} is not on the path", flush=True)
    return [name for name, command in checks.items() if not passes(name, *command)]


def passes(name: str, tool: str, *arguments: str) -> bool:
    """Run one check; what it says is shown only if it fails."""
    started = time.monotonic()
    result = subprocess.run(
        [program(tool), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    verdict = "FAILED" if result.returncode else "ok"
    print(f"{name:8} {verdict:6} {time.monotonic() - started:5.1f} s", flush=True)
    if result.returncode:
        print(result.stdout, flush=True)
    return result.returncode == 0


def program(name: str) -> str:
    """Find a command of the base environment, or one of the registry's anywhere."""
    found = shutil.which(name, path=str(python_in(BASE).parent))
    if name in [command[0] for command in OF_THE_REGISTRY.values()]:
        found = found or shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing in {BASE.name}; delete that folder and try again.")
    return found


if __name__ == "__main__":
    reexec_in_venv()
    if "--fix" in sys.argv[1:]:
        for tool, *arguments in FIXES:
            subprocess.run([program(tool), *arguments], cwd=ROOT)
    raise SystemExit(1 if run_checks() else 0)
