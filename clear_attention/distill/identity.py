"""What a result depends on: fingerprints of what is large, and sentences for what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import Optimiser, Training

SAMPLED = 32
"""Numbers that are looked at per tensor: other weights differ in nearly all of theirs."""

INDEPENDENT = (
    *("steps", "accumulate", "gradient_checkpointing", "offload"),
    *("log_every", "save_every", "keep_states"),
    *("validate_every", "validation_samples", "patience"),
)
"""Settings of the training on which the weights after a step do not depend."""

LATER = {"own_noise": 0.0}
"""Settings that states of earlier versions do not name, with the value that they had then."""

SHOWN = 6
LONGEST_VALUE = 60


def fingerprint(tensors: Mapping[str, Tensor], facts: Iterable[str] = ()) -> str:
    """Return a short checksum of tensors: their names, dtypes, shapes and a few of their numbers.

    Reads kilobytes, whatever their size.

    Args:
        tensors: By name; their order does not count.
        facts: What else is to be the same.
    """
    digest = hashlib.sha256(json.dumps(list(facts)).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_sample(tensor))
    return digest.hexdigest()[:16]


def _sample(tensor: Tensor) -> bytes:
    """Return the bytes of evenly spaced elements."""
    if not tensor.numel():
        return b""
    elements = tensor.reshape(-1).view(torch.uint8).view(tensor.numel(), -1)
    last = tensor.numel() - 1
    places = [last * number // (SAMPLED - 1) for number in range(SAMPLED)]
    return elements[torch.tensor(places, device=tensor.device)].cpu().numpy().tobytes()


def deciding(training: Training, optimiser: Optimiser) -> dict[str, Any]:
    """Return the settings on which a run's result depends, by section.

    The number of steps is among them where the step size decays towards the last one.
    """
    steps = {"steps": training.steps} if optimiser.cosine_to != 1 else {}
    others = {
        name: value
        for name, value in asdict(training).items()
        if name not in INDEPENDENT and LATER.get(name) != value
    }
    rate = {"learning_rate": optimiser.rate}
    return {"optimiser": asdict(optimiser) | rate, "training": {**steps, **others}}


def as_json(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file gives them back, to compare them with those that it holds."""
    return json.loads(json.dumps(tree))


def samples_in(made_with: Mapping[str, Any]) -> int | None:
    """Return how many samples there were when something was made; None if it is not recorded."""
    data = made_with.get("data")
    samples = data.get("samples") if isinstance(data, Mapping) else None
    return samples if type(samples) is int else None


def require_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that going on from a state gives what the run alone would give.

    Args:
        path: The state.
        before: What it was made with.
        now: What the run is made with.

    Raises:
        ValueError: A setting, the teacher or the data is another; the message names it.
    """
    differ = differences(before, now)
    if differ:
        raise ValueError(
            f"{path} does not fit this run: {differ}. Set it back to go on; or take another "
            "name or folder, or delete the states of this one, to begin anew."
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which settings differ, and how; empty if none does.

    Args:
        before: Settings by name, those of a section nested, as JSON gives them back.
        now: The same of what is asked for now.
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    names = [name for name in sorted({**old, **new}) if old.get(name, old) != new.get(name, new)]
    parts = [f"{name} was {_shown(name, old)} and is now {_shown(name, new)}" for name in names]
    more = len(parts) - SHOWN
    return "; ".join(parts[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _shown(name: str, settings: Mapping[str, Any]) -> str:
    if name not in settings:
        return "not recorded"
    text = repr(settings[name])
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
