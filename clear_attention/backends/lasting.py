"""Work whose results outlive the call that does it: lists that are kept, kernels that are compiled.

A host may record what a block allocates, and expect all of it to be free when the block ends. What
stays must be allocated outside of such a recording; only the host knows how to pause it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Hashable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType

Pause = Callable[[], AbstractContextManager[object]]

# Copies of this library share operators (`triton.registry`), so also what goes around their work:
# in a module without a file.
SHARED = "_clear_attention_lasting"
_used: set[Hashable] = set()


def pause_recordings_with(pause: Pause) -> None:
    """Set what pauses the host's recording.

    Args:
        pause: Makes a context for work whose results are kept.
    """
    vars(sys.modules.setdefault(SHARED, ModuleType(SHARED, __doc__)))["pause"] = pause


def lasting() -> AbstractContextManager[object]:
    """Return a context for work whose results are kept."""
    pause: Pause = getattr(sys.modules.get(SHARED), "pause", nullcontext)
    return pause()


@contextmanager
def first_use(*what: Hashable) -> Generator[None]:
    """Do something that compiles when it is first done in a process.

    Args:
        what: What is compiled, by all that a compiled kernel depends on.
    """
    if what in _used:
        yield
        return
    with lasting():
        yield
    _used.add(what)
