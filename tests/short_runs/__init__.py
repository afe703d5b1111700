"""A node pack without nodes, which makes runs short in the server of tests.

What it changes is tested elsewhere: TAESD has an eighth of its channels, and CLEAR Distill paints
its data in two steps, with only as many pictures to validate with as are shown.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

PUBLISHED, WIDTH = 64, 8
"""Channels of TAESD's layers, and what becomes of them."""
GENERATION = dict(steps=2, held_out_samples=4)


async def comfy_entrypoint() -> Any:
    """Change the host, and what will be the pack's modules, which may not be there yet."""
    import comfy.taesd.taesd
    from comfy_api.latest import ComfyExtension
    from server import PromptServer

    class NoNodes(ComfyExtension):
        async def get_node_list(self) -> list[Any]:
            return []

    narrowed(comfy.taesd.taesd, setattr)
    PromptServer.instance.add_on_prompt_handler(with_short_generation)
    return NoNodes()


def narrowed(taesd: ModuleType, change: Callable[[Any, str, Any], None]) -> None:
    """Let the host's module make narrow networks: their width is written in its functions."""
    conv, block = taesd.conv, taesd.Block

    def narrow(channels: int) -> int:
        return WIDTH if channels == PUBLISHED else channels

    change(taesd, "conv", lambda i, o, **given: conv(narrow(i), narrow(o), **given))
    change(taesd, "Block", lambda i, o, **given: block(narrow(i), narrow(o), **given))


def with_short_generation(prompt: dict[str, Any]) -> dict[str, Any]:
    """Shorten what CLEAR Distill paints, before the first prompt runs."""
    (name,) = (name for name in sys.modules if name.endswith("clear-attention.nodes.distill"))
    node = sys.modules[name]
    if not isinstance(node.Generation, functools.partial):
        node.Generation = functools.partial(node.Generation, **GENERATION)
    return prompt
