"""Which blocks of a model call sent CLEAR no attention, although they should have."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...families.block_text import format_blocks
from ..families import HostFamily, plain_module
from .calls.model_call import ModelCall


def report_coverage(call: ModelCall, family: HostFamily, network: Any) -> None:
    """Report the blocks that a finished call of a network has missed.

    A call of which no attention came at all was skipped as a whole, which is what caches do; a run
    without any is reported at its end.

    Args:
        call: It is over.
        family: Of the network.
        network: A model or a ControlNet, compiled or not.
    """
    if call.report is None or not call.acts or not call.attended:
        return
    missed = _missed(call, family, plain_module(network))
    if missed:
        call.report.miss(missed)


def _missed(call: ModelCall, family: HostFamily, network: nn.Module) -> str | None:
    counts = family.block_counts(network)
    expected = {(kind, index) for kind, count in counts.items() for index in range(count)}
    named = {block for block in call.attended if block is not None}
    missing = len(expected) - len(named) - call.attended.count(None)
    if missing <= 0:
        return None
    which = ""
    if len(expected - named) == missing:  # each of them is known by its name
        which = f" ({format_blocks(expected - named)})"
    foreign = sorted(
        {
            type(plain_module(block)).__name__
            for blocks in family.blocks
            for block in blocks.of(network)
            if not blocks.is_own(block)
        }
    )
    why = (
        f"computed by another node ({', '.join(foreign)}) with full attention of its own"
        if foreign
        else "skipped by another node, or computed with full attention of its own"
    )
    return f"{missing} of {len(expected)} blocks{which} sent CLEAR no attention: {why}"
