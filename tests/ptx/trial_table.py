"""Which trials there are: a spread for each run of the tests, and all combinations for a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from attention_cases import Case
from ptx.library import ORDERS, Options
from ptx.trials import Trial

from clear_attention import Queries, TokenLayout

GPUS = ("sm_80", "sm_86", "sm_89", "sm_120")
KINDS = tuple(itertools.product((torch.bfloat16, torch.float16), (64, 128)))

# Name -> the call, and what else is special about the trial.
CALLS: dict[str, tuple[Case, dict[str, object]]] = {
    "plain": (Case(TokenLayout(32, 16, 16), radius=3, heads=1), {}),
    "ragged": (Case(TokenLayout(77, 11, 37, extra=5), radius=5, heads=1), {}),
    "no shared token": (Case(TokenLayout(0, 17, 20), radius=4, heads=1), {}),
    "no shared token, proportional scale": (
        Case(TokenLayout(0, 16, 33), radius=3, heads=1, scale=0.1),
        {},
    ),
    "one text token": (Case(TokenLayout(1, 9, 17), radius=3, heads=1), {}),
    "tiny, steep, batch": (
        Case(TokenLayout(1, 3, 5), radius=1, wraps=(True, True), batch=2, heads=3, scale=0.4),
        {},
    ),
    "far": (Case(TokenLayout(1, 3, 5), radius=1, wraps=(True, True), heads=1), {"far": True}),
    "wrapped": (Case(TokenLayout(5, 11, 21), radius=5, wraps=(True, True), heads=1), {}),
    "pooled": (Case(TokenLayout(6, 13, 22, extra=3), radius=3, factor=4, heads=1), {}),
    "spaced v": (Case(TokenLayout(9, 10, 17), radius=4, heads=1), {"spaced": True}),
    "spaced v, long text": (Case(TokenLayout(133, 10, 17), radius=4, heads=1), {"spaced": True}),
    "a band": (
        Case(TokenLayout(4, 21, 20, extra=3), radius=4, heads=1),
        {"queries": Queries(text=False, extra=False, first_row=6, rows=9)},
    ),
    "a wrapped band and text": (
        Case(TokenLayout(5, 13, 21), radius=4, wraps=(True, False)),
        {"queries": Queries(first_row=11)},
    ),
    "splits": (Case(TokenLayout(77, 24, 48), radius=4, heads=1), {"processors": 20}),
}
STEPPED = ("plain", "no shared token")
ROUNDED = ("plain", "ragged", "no shared token")

# GPU -> name of a call, dtype, head_dim, what is special. For one configuration, sm_80, sm_86 and
# sm_89 get the same instructions, and sm_120 the same in the forward pass: 8 bits, rows that are
# filled up, and what a GPU steps down to are tried on one of them.
BF16, FP16 = torch.bfloat16, torch.float16
Row = tuple[str, torch.dtype, int, dict[str, object]]
SPREAD: dict[str, tuple[Row, ...]] = {
    "sm_80": (
        ("plain", BF16, 64, {"trained": True}),
        ("no shared token", BF16, 64, {"trained": True}),
        ("no shared token, proportional scale", BF16, 128, {}),
        ("ragged", BF16, 128, {"trained": True, "options": Options("reverse", truncate=True)}),
        ("splits", BF16, 128, {}),
        ("plain", BF16, 128, {"rounded": True}),
        ("a band", BF16, 64, {"trained": True}),
    ),
    "sm_86": (
        ("plain", FP16, 128, {"trained": True, "options": Options("random", seed=1)}),
        ("no shared token", FP16, 128, {"trained": True}),
        ("pooled", FP16, 128, {"trained": True}),
        ("far", FP16, 64, {}),
        ("plain", BF16, 64, {"step": 2}),
    ),
    "sm_89": (
        ("one text token", FP16, 64, {"trained": True}),
        ("tiny, steep, batch", FP16, 64, {"trained": True}),
        ("wrapped", FP16, 64, {"trained": True, "options": Options("random", seed=2)}),
        ("spaced v, long text", FP16, 64, {"trained": True}),
        ("a wrapped band and text", FP16, 64, {}),
    ),
    "sm_120": (
        ("no shared token", BF16, 64, {"trained": True}),
        ("ragged", BF16, 64, {"trained": True, "options": Options("reverse")}),
        ("plain", FP16, 120, {"trained": True, "options": Options(truncate=True)}),
        ("spaced v", FP16, 120, {}),
        ("no shared token", FP16, 64, {"rounded": True}),
    ),
}
# With `--all-kernels`: the same on other classes, in other widths.
FURTHER: dict[str, tuple[Row, ...]] = {
    "sm_80": (("plain", FP16, 72, {"trained": True}),),
    "sm_120": (
        ("plain", FP16, 128, {"trained": True, "options": Options(truncate=True)}),
        ("spaced v", FP16, 128, {}),
        ("spaced v", BF16, 120, {}),
        ("plain", BF16, 128, {"step": 1}),
    ),
}


def spread(gpu: str, every: bool = False) -> list[Trial]:
    """Return the trials of every run of the tests for a class of GPU, or also the further ones."""
    further = FURTHER.get(gpu, ()) if every else ()
    return [trial(gpu, *row) for row in (*SPREAD[gpu], *further)]


def sweep(gpu: str) -> Iterator[Trial]:
    """Go through all combinations for a class of GPU."""
    orders = itertools.cycle(
        Options(order, seed, truncate)
        for seed, (order, truncate) in enumerate(itertools.product(ORDERS, (False, True)))
    )
    for name, (dtype, head_dim) in itertools.product(CALLS, KINDS):
        yield trial(gpu, name, dtype, head_dim, {"trained": True, "options": next(orders)})
    for name, (dtype, head_dim), step in itertools.product(STEPPED, KINDS, (1, 2)):
        yield trial(gpu, name, dtype, head_dim, {"trained": True, "step": step})
    for name, (dtype, head_dim) in itertools.product(ROUNDED, KINDS):
        yield trial(gpu, name, dtype, head_dim, {"rounded": True})


def trial(
    gpu: str, name: str, dtype: torch.dtype, head_dim: int, special: dict[str, object]
) -> Trial:
    """Return a trial of a call."""
    case, always = CALLS[name]
    words = [name, str(dtype).removeprefix("torch."), str(head_dim)]
    words += [key if value is True else f"{key} {value}" for key, value in special.items()]
    full_name = ", ".join(word for word in words if not word.startswith("options"))
    case = replace(case, dtype=dtype, head_dim=head_dim)
    return replace(Trial(full_name, gpu, case), **{**always, **special})
