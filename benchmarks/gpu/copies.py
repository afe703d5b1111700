"""Copies between each pair of GPUs: how fast, one way and both ways, and whether all arrives."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

REPEATS = 5


@dataclass(frozen=True)
class CopyRates:
    """What a pair of devices carries.

    Attributes:
        source: Where a copy comes from.
        target: Where it goes.
        one_way: Bytes per second, while nothing comes back.
        both_ways: The same while as much comes back.
        whole: Whether it arrives as it was sent.
    """

    source: torch.device
    target: torch.device
    one_way: float
    both_ways: float
    whole: bool


def measure_copies(devices: Sequence[torch.device], size: int) -> list[CopyRates]:
    """Copy between each pair of different devices; a device alone copies to itself.

    Args:
        devices: Of this machine.
        size: Bytes of a copy.
    """
    from clear_attention.parallel.local import corrupting_pairs

    broken = corrupting_pairs(list(devices))
    pairs = list(itertools.permutations(devices, 2)) or [(devices[0], devices[0])]
    return [
        CopyRates(
            source,
            target,
            _rate([(source, target)], size),
            _rate([(source, target), (target, source)], size),
            (source, target) not in broken,
        )
        for source, target in pairs
    ]


def _rate(pairs: list[tuple[torch.device, torch.device]], size: int) -> float:
    """Return the bytes per second of each of some copies at once."""
    tasks = [_copy(source, target, size) for source, target in pairs]
    best = float("inf")
    for _ in range(REPEATS + 1):  # the first one may open a way between two cards
        _wait_for(pairs)
        started = time.perf_counter()
        for task in tasks:
            task()
        _wait_for(pairs)
        best = min(best, time.perf_counter() - started)
    return size / best


def _copy(source: torch.device, target: torch.device, size: int) -> Callable[[], Tensor]:
    """Return a copy that waits for no other one: torch orders it by the current streams of both."""
    sent = torch.ones(size, dtype=torch.uint8, device=source)
    received = torch.empty(size, dtype=torch.uint8, device=target)
    streams: list[Any] = [
        torch.cuda.Stream(device) for device in {source, target} if device.type == "cuda"
    ]

    def copy() -> Tensor:
        with ExitStack() as stack:
            for stream in streams:
                stack.enter_context(torch.cuda.stream(stream))
            return received.copy_(sent, non_blocking=True)

    return copy


def _wait_for(pairs: list[tuple[torch.device, torch.device]]) -> None:
    for device in {device for pair in pairs for device in pair}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
