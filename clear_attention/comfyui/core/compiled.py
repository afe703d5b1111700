"""One sentence for a model that another node compiles into one graph, which CLEAR cannot be in."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

ONE_GRAPH = (
    "CLEAR must run between the parts of a compiled model, got a model that is compiled as one "
    "graph. Switch fullgraph off in the node that compiles it."
)

OURS = ("<function override ", "<function _replace.<locals>.replace ")
"""How torch writes the functions of this pack that it must not look into."""


@contextmanager
def one_graph_named() -> Generator[None]:
    """Name fullgraph where torch's compiler fails because of it.

    Raises:
        RuntimeError: In place of the compiler's error.
    """
    try:
        yield
    except Exception as error:
        # By name: torch's compiler takes seconds to import, and is not needed here.
        if type(error).__name__ != "Unsupported" or not any(one in str(error) for one in OURS):
            raise
        raise RuntimeError(ONE_GRAPH) from error
