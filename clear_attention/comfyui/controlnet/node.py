"""CLEAR ControlNet: a copy of a CONTROL_NET that attends locally, of the host's own class."""

from __future__ import annotations

import functools
from typing import Any

from comfy.controlnet import ControlNet

from ..core import host
from ..core.report import RunReport
from .net import LocalControlNet
from .settings import ControlSettings
from .supported import require_supported


def with_local_attention(control_net: Any, settings: ControlSettings) -> LocalControlNet:
    """Return a copy of a CONTROL_NET that attends locally; of two nodes the later one wins.

    Raises:
        RuntimeError: The host is too old.
        ValueError: Its network has no attention that CLEAR can reach.
    """
    host.require_usable()
    require_supported(control_net)
    own = host_class(control_net)
    if own is None:
        raise ValueError(
            f"CLEAR knows ComfyUI's own ControlNets, got the {type(control_net).__name__} of "
            "another node pack. Load it with Load ControlNet Model."
        )
    return local_class(own).like(control_net, settings, RunReport())


def host_class(control_net: Any) -> type[ControlNet] | None:
    """Return the host's class of a ControlNet, local or not; None for one of another pack."""
    kind = type(control_net)
    if issubclass(kind, LocalControlNet):
        return next(one for one in kind.__mro__ if one.__module__ == ControlNet.__module__)
    return kind if kind.__module__ == ControlNet.__module__ else None


@functools.cache
def local_class(of_the_host: type[ControlNet]) -> type[LocalControlNet]:
    """Return what a class of the host's is with local attention: some change how a net is run."""
    if of_the_host is ControlNet:
        return LocalControlNet
    return type(f"Local{of_the_host.__name__}", (LocalControlNet, of_the_host), {})
