"""Door: what a Ray process is started with. It opens the pack that lies on that machine.

The only code of the pack that travels between machines. It imports nothing of the pack, which is
known there by another name, and gives back plain values only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import traceback
from typing import Any

PACK_VARIABLE = "CLEAR_CLUSTER_PACK"
HOST_VARIABLE = "CLEAR_CLUSTER_COMFYUI"
BASE_VARIABLE = "CLEAR_CLUSTER_BASE_DIRECTORY"
"""Folders of a machine that was joined by ``python -m clear_attention.cluster``."""

START = "clear_attention.comfyui.parallel.cluster.start"

STOPS = "abort"
"""The method that does not wait for others."""


class Door:
    """A worker on another machine, or in another process of this one."""

    def __init__(self) -> None:
        self._worker: Any = None
        self._one_at_a_time = threading.Lock()

    def open(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Start ComfyUI's modules here, without its server.

        Args:
            settings: As `start.worker` takes them.
        """
        pack = os.environ.get(PACK_VARIABLE) or settings["pack"]
        if not os.path.isdir(os.path.join(pack, "clear_attention")):
            return {
                "error": f"there is no CLEAR Attention at {pack}. Join the machine by "
                "python -m clear_attention.cluster there"
            }
        if pack not in sys.path:
            sys.path.append(pack)
        try:
            self._worker = importlib.import_module(START).worker(settings)
            return {"value": None}
        except Exception as error:  # whatever it is, the other side has no class for it
            return {"error": f"{error}", "trace": traceback.format_exc()}

    def do(self, name: str, *arguments: Any) -> dict[str, Any]:
        """Call a method of the worker, and return its plain result, or its error in words.

        Calls wait for each other; Ray serves them in threads, so that one can stop another.
        """
        if self._worker is None:
            return {"error": "its ComfyUI has not started"}
        wait = contextlib.nullcontext() if name == STOPS else self._one_at_a_time
        try:
            with wait:
                return {"value": getattr(self._worker, name)(*arguments)}
        except BaseException as error:  # an interrupt of the host is none of Exception's
            kind = self._worker.kind_of(error)
            return {"error": f"{error}", "kind": kind, "trace": traceback.format_exc()}
