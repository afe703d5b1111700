"""Resumable states as safetensors: weights, averages and the optimiser's memory, to the bit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim import Optimizer

from ..atomic_files import remove_remains
from .data.tensor_files import UNREADABLE, write_tensors
from .updates.optimisers import is_memory
from .workers import sharding
from .workers.sharding import spread_as

NAME = "state-{:07}.safetensors"
PATTERN = re.compile(r"state-(\d{7})\.safetensors")
LONGEST_REASON = 120


@dataclass(frozen=True, eq=False)
class State:
    """Where a run stands.

    Attributes:
        step: Updates done.
        weights: What is trained, by parameter name.
        average: Its running average; empty without one.
        memory: Tensors of the optimiser, by parameter name and entry.
        numbers: What else the optimiser knows: per group, and per parameter name.
        made_with: What the run depends on.
    """

    step: int
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    memory: Mapping[str, Mapping[str, Tensor]]
    numbers: dict[str, Any]
    made_with: dict[str, Any]


def save(folder: Path, state: State, keep: int) -> Path:
    """Write a state and remove all but the last ones.

    Args:
        folder: Of the run.
        state: To write.
        keep: How many to keep.
    """
    tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in state.average.items()}
    for name, entries in state.memory.items():
        tensors |= {f"memory/{entry}/{name}": tensor for entry, tensor in entries.items()}
    facts = {"step": state.step, "numbers": state.numbers, "made_with": state.made_with}
    path = folder / NAME.format(state.step)
    remove_remains(folder, PATTERN.pattern)  # a run that goes on may save at other steps
    write_tensors(path, tensors, state=json.dumps(facts))
    for old in states(folder)[:-keep]:
        old.unlink()
    return path


def broken_in(state: State) -> str | None:
    """Name the first thing in a state that is not finite; None if all is as it should be.

    Of sharded tensors it looks at this process's part.
    """
    tensors = {f"the weight {name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"the average of {name}": tensor for name, tensor in state.average.items()}
    for name, entries in state.memory.items():
        tensors |= {f"the optimiser's {e} of {name}": tensor for e, tensor in entries.items()}
    broken = (name for name, tensor in tensors.items() if not is_finite(sharding.local(tensor)))
    # Infinity is a number that Prodigy keeps: it stands for no bound.
    lost = "the optimiser's memory" if "NaN" in json.dumps(state.numbers) else None
    return next(broken, lost)


def is_finite(tensor: Tensor) -> bool:
    """Return whether all numbers are finite, without memory for an answer about each."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    return all(math.isfinite(float(extreme)) for extreme in torch.aminmax(tensor.detach()))


def states(folder: Path) -> list[Path]:
    """List a folder's states, the last one at the end."""
    return sorted(path for path in folder.glob("state-*") if PATTERN.fullmatch(path.name))


def step_of_last(folder: Path) -> int:
    """Return the step of a folder's last state, 0 without one."""
    found = states(folder)
    match = PATTERN.fullmatch(found[-1].name) if found else None
    return int(match[1]) if match else 0


def load(path: Path) -> State:
    """Read a state.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _state_of(facts, tensors)
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def made_with(path: Path) -> dict[str, Any]:
    """Read what a state was made with, without its tensors.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})["state"])["made_with"])
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is damaged ({_reason(error)}): delete it to go on from the one before."
    )


def _state_of(facts: Any, tensors: Mapping[str, Tensor]) -> State:
    """Put a file's contents together; any error says that they are damaged."""
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "memory": {}}
    for key, tensor in tensors.items():
        part, name = key.split("/", 1)
        parts[part][name] = tensor
    memory: dict[str, dict[str, Tensor]] = {}
    for key, tensor in parts["memory"].items():
        entry, name = key.split("/", 1)
        memory.setdefault(name, {})[entry] = tensor
    numbers = facts["numbers"]
    shape_is_right = (
        type(facts["step"]) is int
        and facts["step"] >= 0
        and isinstance(facts["made_with"], dict)
        and all(isinstance(group, dict) for group in numbers["groups"])
        and all(isinstance(entries, dict) for entries in numbers["scalars"].values())
    )
    if not shape_is_right:
        raise TypeError("its metadata")
    return State(
        step=facts["step"],
        weights=parts["weights"],
        average=parts["average"],
        memory=memory,
        numbers=numbers,
        made_with=facts["made_with"],
    )


def _reason(error: Exception) -> str:
    return ascii(str(error)[:LONGEST_REASON])


def of_optimiser(
    optimiser: Optimizer, parameters: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Part an optimiser's memory into tensors and numbers, by parameter name."""
    memory: dict[str, dict[str, Tensor]] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        for entry, value in optimiser.state.get(parameter, {}).items():
            home = memory if isinstance(value, Tensor) else scalars
            home.setdefault(name, {})[entry] = value
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimiser.param_groups
    ]
    return memory, {"groups": groups, "scalars": scalars}


def into_optimiser(
    optimiser: Optimizer, parameters: Mapping[str, Tensor], state: State, what: str
) -> None:
    """Give an optimiser its memory back.

    Args:
        optimiser: As it was made.
        parameters: What it updates, by name.
        state: Where the memory is.
        what: What to call the state in an error.

    Raises:
        ValueError: It is the memory of another optimiser, or damaged.
    """
    memory = {
        name: {**state.numbers["scalars"].get(name, {}), **state.memory.get(name, {})}
        for name in parameters
    }
    groups = state.numbers["groups"]
    own = [group.keys() - {"params"} for group in optimiser.param_groups]
    fits = (
        len(own) == len(groups)
        # Prodigy's first step adds numbers of its own.
        and all(made <= saved.keys() for made, saved in zip(own, groups, strict=True))
        and set(state.memory) <= set(parameters)
        and is_memory(memory, parameters)
    )
    if not fits:
        raise ValueError(
            f"{what} holds no memory of this optimiser, or of a newer version of its package: "
            "take another name or folder, or delete it."
        )
    for name, parameter in parameters.items():
        entries: dict[str, Any] = {}
        for entry, value in memory[name].items():
            # Counters stay where the optimiser made them: on the CPU.
            moves = isinstance(value, Tensor) and value.ndim > 0
            entries[entry] = spread_as(parameter, value) if moves else value
        if entries:
            optimiser.state[parameter] = entries
    for group, saved in zip(optimiser.param_groups, groups, strict=True):
        group.update({key: _like(group.get(key), value) for key, value in saved.items()})


def copy_into(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Overwrite parameters.

    Raises:
        ValueError: The names or shapes differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in parameters.items()}:
        raise ValueError(
            f"{what} is of another model or student: take another name or folder, or delete it."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(spread_as(parameter, tensors[name]))


def _like(old: Any, new: Any) -> Any:
    return tuple(new) if isinstance(old, tuple) else new  # JSON has lists only
