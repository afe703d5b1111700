"""One registration of each operator per process, however many copies of this library it has.

Torch's operators are global. A second definition under the same name destroys the first one, and
calls through what the first copy holds may crash. So copies with the same code share one operator,
and other code gets a name of its own.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

NAMESPACE = "clear_attention"
# Only sys.modules is the same for all copies: what they share is kept in a module without a file.
SHARED = "_clear_attention_operators"


def registered(name: str, register: Callable[[str], Any]) -> Any:
    """Return what the first copy with this code registered, or register it.

    Args:
        name: Of the operator.
        register: Called with the operator's full name.
    """
    kept = vars(sys.modules.setdefault(SHARED, ModuleType(SHARED, __doc__)))
    full_name = f"{name}_{_fingerprint()}"
    if full_name not in kept:
        kept[full_name] = register(f"{NAMESPACE}::{full_name}")
    return kept[full_name]


@functools.cache
def _fingerprint() -> str:
    """Return a digest of the library's code, as far as the operators can depend on it."""
    library = Path(__file__).parents[2]
    found = hashlib.sha256()
    for file in sorted([*library.glob("*.py"), *library.glob("backends/**/*.py")]):
        found.update(file.relative_to(library).as_posix().encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:12]
