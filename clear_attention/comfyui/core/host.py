"""Which ComfyUI this is, and what it lacks."""

from __future__ import annotations

import importlib
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from comfyui_version import __version__ as HOST_VERSION

# The first version whose attention can be overridden per model.
OLDEST = (0, 3, 60)


def version() -> tuple[int, ...]:
    """Return the host's version as numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", HOST_VERSION)[:3])


def server() -> Any | None:
    """Return the host's server, or None where the host does not run as one."""
    # Not imported: a host that serves has done so, and others cannot always.
    prompt_server = getattr(sys.modules.get("server"), "PromptServer", None)
    return getattr(prompt_server, "instance", None)


def outside_recording() -> AbstractContextManager[object]:
    """Pause the host's recording of what the running block allocates, where it has one.

    Newest hosts record it in the first step and expect the same in each further one. What is
    allocated once and kept must not be a part of it.
    """
    try:
        prefetch = importlib.import_module("comfy.model_prefetch")
    except ImportError:
        return nullcontext()
    pause = getattr(prefetch, "pause_malloc_graph", None)
    return nullcontext() if pause is None else pause()


def require_usable() -> None:
    """Raise a RuntimeError that names the version to update to, if this host is too old."""
    if version() < OLDEST:
        raise RuntimeError(
            f"CLEAR Attention needs ComfyUI {'.'.join(map(str, OLDEST))} or newer (0.3.76 is "
            f"recommended), this is {HOST_VERSION}. Update ComfyUI."
        )
