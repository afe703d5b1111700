"""How many made-up files a test tries: few by default, more by the environment's CLEAR_FUZZ."""

from __future__ import annotations

import os


def rounds(quick: int) -> int:
    """Return the number of files to try: a quick run's, times what CLEAR_FUZZ asks for."""
    return quick * int(os.environ.get("CLEAR_FUZZ", "1"))
