"""This process's connection to Ray: imported where it is used, and left as it was found."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

LOCAL, AUTO = "local", "auto"

INSTALL = "{python} -m pip install 'ray>=2.52'"

LINUX = (
    "CLEAR Cluster must run on Linux, got {platform}: Ray's clusters and its processes on GPUs are "
    "made for it. CLEAR Parallel uses the GPUs of this machine everywhere."
)

SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Ray reports nothing about its use to others, and takes no GPU away from who asks for none."""


class Connection:
    """A connection to Ray.

    Attributes:
        address: That it was asked for.
        started: Whether it is this process's own Ray, which ends with it.
    """

    def __init__(self, address: str, processes: int) -> None:
        self.address = address
        self.ray: Any = import_ray()
        self.started = False
        self._ours = not self.ray.is_initialized()
        if self._ours:
            self._connect(processes)

    def _connect(self, processes: int) -> None:
        for name, value in SILENT.items():
            os.environ.setdefault(name, value)
        if self.address == AUTO:
            try:
                self._init(address=AUTO)
                return
            except ConnectionError:  # no Ray runs on this machine
                pass
        if self.address in (AUTO, LOCAL):
            cores = max(processes, os.cpu_count() or 1)
            self._init(address=LOCAL, num_cpus=cores, include_dashboard=False)
            self.started = True
            return
        try:
            self._init(address=self.address)
        except Exception as error:  # of many kinds, by versions
            raise ValueError(
                f"address must be that of a Ray that runs on this machine too, got "
                f"{self.address!r}: {error}. Start it by: ray start --head --port=6379"
            ) from error

    def _init(self, **settings: Any) -> None:
        self.ray.init(
            configure_logging=False, log_to_driver=False, logging_level=logging.ERROR, **settings
        )

    @property
    def open(self) -> bool:
        """Whether it has not been closed, here or by somebody else."""
        return bool(self.ray.is_initialized())

    @property
    def own_address(self) -> str:
        """The address of this machine, as the others reach it."""
        return str(self.ray.util.get_node_ip_address())

    def close(self) -> None:
        """End what was started here; a cluster that was joined goes on."""
        if self._ours and self.ray.is_initialized():
            self.ray.shutdown()


def import_ray() -> Any:
    """Return the package.

    Raises:
        ValueError: This is no Linux, or Ray is not installed.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError(LINUX.format(platform=sys.platform))
    _use_secret()
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ValueError(
            "CLEAR Cluster needs Ray on every machine, in the Python of ComfyUI: "
            f"{INSTALL.format(python=sys.executable)}"
        ) from error


def _use_secret() -> None:
    """Use the cluster's secret where there is one: Ray does by itself only where it starts one."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or Path(path).is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
