"""The process group of a session, beside whatever group other nodes have: gloo, or NCCL."""

from __future__ import annotations

import datetime
from typing import Any

import torch
import torch.distributed as dist

CONNECT = datetime.timedelta(seconds=60)

GLOO, NCCL = "gloo", "nccl"

c10d: Any = dist  # torch does not say what these classes take


def open_store(address: str, size: int) -> Any:
    """Open the place where ranks find each other; its port is free on this machine.

    Args:
        address: Of this machine, as others reach it.
        size: Number of ranks.
    """
    return c10d.TCPStore(address, 0, size, True, timeout=CONNECT, wait_for_workers=False)


def join_store(address: str, port: int, size: int) -> Any:
    """Connect to the store of another process.

    Args:
        address: Of its machine.
        port: Of the store.
        size: Number of ranks.
    """
    return c10d.TCPStore(address, port, size, False, timeout=CONNECT, wait_for_workers=False)


def join_group(
    store: Any, name: str, rank: int, size: int, *, backend: str, address: str
) -> dist.ProcessGroup:
    """Join a group; returns once all ranks have.

    It is no part of torch's register of groups, so that a group of other nodes stays as it is.

    Args:
        store: Of the session.
        name: Of the group; never used before.
        rank: Of this process.
        size: Number of ranks.
        backend: "gloo" or "nccl".
        address: Of this machine: gloo listens there.

    Raises:
        RuntimeError: Not all have joined in time.
    """
    place = c10d.PrefixStore(name, store)
    if backend == NCCL:
        return c10d.ProcessGroupNCCL(place, rank, size, c10d.ProcessGroupNCCL.Options())
    options = c10d.ProcessGroupGloo._Options()
    options._timeout = CONNECT
    options._devices = [c10d.ProcessGroupGloo.create_device(hostname=address)]
    return c10d.ProcessGroupGloo(place, rank, size, options)


def backend_for(cards: list[str]) -> str:
    """Return what connects ranks: NCCL where each has a CUDA card of its own.

    Args:
        cards: Of all ranks, by their unique ids; "" is no CUDA card.
    """
    own = all(cards) and len(set(cards)) == len(cards)
    return NCCL if own and dist.is_nccl_available() else GLOO


def card_of(device: torch.device) -> str:
    """Return the unique id of a CUDA card, or "" for other devices."""
    if device.type != "cuda":
        return ""
    return str(torch.cuda.get_device_properties(device).uuid)
