"""Benchmark results as Markdown files that say where they come from."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import torch

from clear_attention.atomic_files import written_whole

RESULTS = Path(__file__).parent / "results"


def write(what: str, body: str) -> Path:
    """Write a result as `results/<what>_<device>_<yyyy-mm>.md` and print it.

    Args:
        what: Name of the benchmark.
        body: Its tables, in Markdown.
    """
    device, today = device_name(), datetime.date.today()
    text = (
        f"# {what.capitalize()}\n\n"
        f"- Device: {device}, {os.cpu_count()} cores used by {torch.get_num_threads()} threads\n"
        f"- Versions: torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()}\n"
        f"- Commit: {commit()}\n"
        f"- Date: {today.isoformat()}\n"
        f"- Command: `python3 {shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}`\n\n"
        f"{body}\n"
    )
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    target = RESULTS / f"{what}_{slug}_{today:%Y-%m}.md"
    with written_whole(target) as part:
        part.write_text(text, encoding="utf-8")
    print(text)
    return target


def device_name() -> str:
    """Return the name of the GPU, or of the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8"))
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the short hash of the checked-out commit, marked if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    result = subprocess.run(command, cwd=RESULTS, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"
