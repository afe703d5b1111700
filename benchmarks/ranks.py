"""A sampling run that several ranks share: the seconds of its steps, and what each rank did."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.model import LATENT_CHANNELS, PIXELS_PER_LATENT, Size

WATCH_KEY = "clear_benchmark"
STEPS = 3


@dataclass(frozen=True)
class SharedRun:
    """What a run gave.

    Attributes:
        latent: Its result.
        seconds: Of each step but the first, which also moves weights.
        received: Bytes of each rank in a model call; empty on one device.
        waited: Seconds, likewise.
    """

    latent: Tensor
    seconds: list[float]
    received: list[float]
    waited: list[float]


def shared_run(model: Any, devices: str, size: Size, edge_px: int, text: int) -> SharedRun:
    """Sample a few steps of a square picture on some devices, with equal shares.

    Args:
        model: A MODEL.
        devices: Their names, as CLEAR Parallel takes them.
        size: Of the model.
        edge_px: Edge of the picture.
        text: Number of text tokens.

    Raises:
        RuntimeError: The devices do not share the run.
    """
    from benchmarks.cpu.host import run_sampler
    from clear_attention.comfyui.parallel.devices import parse_devices
    from clear_attention.comfyui.parallel.node import TEAM_KEY, with_parallel

    chosen = parse_devices(devices)
    teams: dict[int, Any] = {}

    def watch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        options = next(one for one in args if isinstance(one, dict) and "sigmas" in one)
        if (team := options.get(TEAM_KEY)) is not None:
            teams[id(team)] = team
        return executor(*args, **kwargs)

    if len(chosen) > 1:
        model = with_watch(with_parallel(model, chosen, (1.0,) * len(chosen)), watch)
    noise, positive = inputs(size, edge_px, text)
    latent, ends = run_sampler(model, noise, positive, STEPS)
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    if len(chosen) < 2:
        return SharedRun(latent, seconds, [], [])
    if not teams:
        raise RuntimeError("one device computed everything; ComfyUI's log states why")
    (team,) = teams.values()
    return SharedRun(
        latent,
        seconds,
        [rank.received / team.calls for rank in team.ranks],
        [rank.waited / team.calls for rank in team.ranks],
    )


def with_watch(model: Any, watch: Any) -> Any:
    """Return a clone whose model calls go through a function of ours."""
    from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

    model = model.clone()
    add_wrapper_with_key(
        *(WrappersMP.APPLY_MODEL, WATCH_KEY, watch, model.model_options), is_model_options=True
    )
    return model


def inputs(size: Size, edge_px: int, text: int) -> tuple[Tensor, Any]:
    """Return seeded noise and a prompt."""
    generator = torch.Generator().manual_seed(1)
    latent = edge_px // PIXELS_PER_LATENT
    noise = torch.randn(1, LATENT_CHANNELS, latent, latent, generator=generator)
    prompt = torch.randn(1, text, size.text_dim, generator=generator)
    pooled = torch.randn(1, size.pooled_dim, generator=generator)
    return noise, [[prompt, {"pooled_output": pooled, "guidance": 3.5}]]


def distance(latent: Tensor, other: Tensor) -> float:
    """Return the root of the mean square difference, relative to the other."""
    return float((latent - other).norm() / other.norm())
