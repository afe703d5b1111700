"""Which ComfyUI this is, and what it lacks."""

from __future__ import annotations

import re

from comfyui_version import __version__ as HOST_VERSION

# The first version whose attention can be overridden per model.
OLDEST = (0, 3, 60)


def version() -> tuple[int, ...]:
    """Return the host's version as numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", HOST_VERSION)[:3])


def require_usable() -> None:
    """Raise a RuntimeError that names the version to update to, if this host is too old."""
    if version() < OLDEST:
        raise RuntimeError(
            f"CLEAR Attention needs ComfyUI {'.'.join(map(str, OLDEST))} or newer (0.3.76 is "
            f"recommended), this is {HOST_VERSION}. Update ComfyUI."
        )
