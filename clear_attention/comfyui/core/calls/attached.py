"""Networks in a model's patches, such as Z-Image's ControlNets: they attend within its calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from ...families import HostFamily, plain_module
from ...families.nets import net_of
from ..blocks import tell_blocks
from ..override import override
from ..report import RunReport
from .model_call import CALL_KEY, OVERRIDE_KEY, ModelCall

NAME = "ControlNet"
"""How reports call a network in a model's patches, which has no node of ours."""


@contextmanager
def attached_local(call: ModelCall, options: Mapping[str, Any]) -> Generator[None]:
    """Give the window of a model call to the networks in its patches, and report what they did.

    The host calls their blocks without options, so that no override could reach them.

    Args:
        call: Of the model.
        options: Of the call.
    """
    found = [
        (_call_of(call, family), family, network) for family, network in attached_networks(options)
    ]
    with ExitStack() as hooks:
        for own, family, network in found:
            ours = {CALL_KEY: own, OVERRIDE_KEY: override}
            hooks.enter_context(tell_blocks(family, network, {}, ours))
        yield
    for own, _, _ in found:
        if call.report is not None and own.report is not None:
            call.report.include(own.report, NAME)


def attached_networks(options: Mapping[str, Any]) -> Iterator[tuple[HostFamily, nn.Module]]:
    """Find the networks in a call's patches that attend to its picture, each of them once.

    Args:
        options: Of the call.
    """
    known: set[int] = set()
    for patches in options.get("patches", {}).values():
        for patch in patches:
            for patcher in getattr(patch, "models", list)():
                network = plain_module(patcher.model)
                family = net_of(network)
                if family is not None and id(network) not in known:
                    known.add(id(network))
                    yield family, network


def _call_of(call: ModelCall, family: HostFamily) -> ModelCall:
    """Return the call of a network within a model's call; what was learned per block is gone."""
    local = call.settings.local
    return dataclasses.replace(
        call,
        family=family,
        settings=dataclasses.replace(call.settings, local=local and local.without_blocks()),
        geometry=dataclasses.replace(call.geometry, pads_to=family.data.pads_to, references=0),
        previous=None,
        report=None if call.report is None else RunReport(),
        recorder=None,
        own_attention={},
        attended=[],
        masks={},
    )
