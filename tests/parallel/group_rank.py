"""One rank of several processes that compute one attention; prints what it found as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from clear_attention import Pooling, TokenLayout, Window, attention
from clear_attention.parallel.attention import Seat, attend
from clear_attention.parallel.group import GroupTransport
from clear_attention.parallel.partition import share_out
from clear_attention.parallel.process_group import join_group, join_store, open_store
from clear_attention.parallel.transport import Aborted, Expected

CPU = torch.device("cpu")

# Name -> layout, window, pool factor, shares, shared extra tokens.
CASES = {
    "odd rows": (TokenLayout(7, 13, 9), Window(3), 0, (1, 1, 1), range(0)),
    "columns": (TokenLayout(7, 9, 14), Window(3), 0, (1, 1, 1), range(0)),
    "uneven": (TokenLayout(5, 17, 6), Window(4), 0, (5, 1, 2), range(0)),
    "wider than a band": (TokenLayout(5, 9, 6), Window(7), 0, (1, 1, 1), range(0)),
    "pooled": (TokenLayout(5, 17, 8), Window(3), 4, (1, 1, 1), range(0)),
    "wrapped": (TokenLayout(5, 12, 7), Window(3, wrap_height=True), 0, (1, 1, 1), range(0)),
    "references": (TokenLayout(5, 12, 7, 9), Window(3), 0, (2, 1, 1), range(0, 9)),
    "full": (TokenLayout(5, 12, 7, 9), None, 0, (1, 1, 1), range(0)),
}


def tensors(layout, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 2, layout.tokens, 16, generator=generator) for _ in range(3)]


def compared(group):
    """Return the largest distance of this rank's tokens from one device's, and its text's bits."""
    found = {}
    for seed, (name, (layout, window, factor, shares, extra)) in enumerate(CASES.items()):
        pooling = Pooling(factor) if factor else None
        multiple = max(1, factor)
        partition = share_out(layout.height, layout.width, shares, multiple=multiple, extra=extra)
        seat = Seat(partition, GroupTransport(group, CPU))
        q, k, v = tensors(layout, seed)
        own = [partition.of(x, layout, seat.rank, 2) for x in (q, k, v)]
        out = attend(*own, seat, layout, window, pooling=pooling)
        wide = window or Window(layout.height + layout.width)
        whole = attention(q.double(), k.double(), v.double(), layout, wide, pooling=pooling)
        expected = partition.of(whole, layout, seat.rank, 2)
        distance = float((out - expected).norm() / expected.norm())
        text = out[:, :, : layout.text].contiguous().numpy().tobytes()
        found[name] = [distance, hashlib.sha256(text).hexdigest()]
    return found


def stopped(group, how):
    """Exchange until the last rank has stopped; return how long it took to see that, and why."""
    transport = GroupTransport(group, CPU)
    others = [rank for rank in range(transport.size) if rank != transport.rank]
    awaited = [Expected((3,), torch.float32)]
    sent = [torch.ones(3)]
    transport.exchange(dict.fromkeys(others, sent), dict.fromkeys(others, awaited)).wait()
    begun = time.time()
    if transport.rank == 2:
        if how == "exits":
            time.sleep(0.5)
            os._exit(0)
        if how == "aborts":
            time.sleep(0.5)
            transport.abort(ValueError("out of order"))
        else:  # while it waits, as all do
            threading.Timer(0.5, transport.abort, [ValueError("out of order")]).start()
    try:
        transport.exchange({}, {(transport.rank + 1) % transport.size: awaited}).wait()
    except Aborted as error:
        transport.abort(error)
        return {"seconds": time.time() - begun, "cause": str(error.__cause__)}
    return {"seconds": time.time() - begun, "cause": None}


def main(rank, size, port_file):
    torch.set_num_threads(1)
    place = Path(port_file)
    if rank == 0:
        store = open_store("127.0.0.1", size)
        part = place.with_suffix(".part")
        part.write_text(str(store.port))
        part.rename(place)
    else:
        while not place.exists():
            time.sleep(0.02)
        store = join_store("127.0.0.1", int(place.read_text()), size)

    def joined(name):
        return join_group(store, name, rank, size, backend="gloo", address="127.0.0.1")

    print(json.dumps({"compared": compared(joined("compared"))}), flush=True)
    for how in ("is stopped", "aborts", "exits"):
        print(json.dumps({how: stopped(joined(how), how)}), flush=True)
    if rank == 0:
        time.sleep(1.0)  # the store is this process's
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
