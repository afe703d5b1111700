"""Join this machine to a cluster: what it has, and Ray's process from which workers start."""

from __future__ import annotations

import importlib
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from ... import headless
from .connection import SILENT, import_ray
from .door import BASE_VARIABLE, HOST_VARIABLE, PACK_VARIABLE

RAY = (sys.executable, "-m", "ray.scripts.scripts")
"""Ray's command, of this very Python."""


def facts(cpu: bool, base_directory: Path | None) -> list[str]:
    """Return what must be the same on all machines, a line each.

    Args:
        cpu: Whether workers compute on the CPU.
        base_directory: Where ComfyUI's models and node packs are; None for its own folder.

    Raises:
        ValueError: Ray is missing, or there is no GPU.
        RuntimeError: This ComfyUI is too old.
    """
    ray = import_ray()
    headless.prepare(cpu, base_directory)
    host: Any = importlib.import_module(".core.host", package=headless.__package__)
    host.require_usable()
    source: Any = importlib.import_module(".inventory", package=__package__)
    management: Any = importlib.import_module("comfy.model_management")
    device = management.get_torch_device()
    if device.type == "cpu" and not cpu:
        raise ValueError("This machine must have a GPU that torch can use. --cpu does without.")
    versions = source.versions()
    return [
        f"{socket.gethostname()}: {management.get_torch_device_name(device)}",
        *(f"{name} {version}" for name, version in versions.items()),
        f"Ray {ray.__version__}, on {platform.system()}",
    ]


def start(address: str, folder: Path, base_directory: Path | None, cpu: bool) -> int:
    """Start Ray here, as a part of a cluster, and return its exit code.

    Args:
        address: Host and port of Ray on the first machine.
        folder: ComfyUI's.
        base_directory: Where its models and node packs are; None for its own folder.
        cpu: Whether workers compute on the CPU.
    """
    command = [*RAY, "start", f"--address={address}", "--disable-usage-stats"]
    if cpu:
        command.append("--num-gpus=0")
    # Workers that Ray starts here find them in their environment.
    folders = {HOST_VARIABLE: str(folder), PACK_VARIABLE: str(headless.PACK)}
    if base_directory is not None:
        folders[BASE_VARIABLE] = str(base_directory)
    # Not from the pack's folder, whose `nodes` would hide the host's.
    return subprocess.run(command, cwd=folder, env={**os.environ, **SILENT, **folders}).returncode
