"""Make a clone of a model share each of its calls among devices, through the host's wrappers."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor, nn

from ...parallel.local import corrupting_pairs
from ..core.calls.model_call import SEAT_KEY, geometry_of_call
from ..core.calls.shared_nets import NETS_KEY
from ..core.patch import REPORT_KEY, settings_of, with_settings
from ..core.report import RunReport
from ..core.settings import Settings
from ..families import family_of, plain_module, require_family
from .copies import COPIES, register_hooks
from .devices import name_of
from .nets import TeamNets, copied_nets
from .one_device import why_not_call, why_one_device
from .partition import partition_of
from .team import CallArguments, Rank, Team
from .threads import Crew

PARALLEL_KEY = "clear_parallel"
"""Where `Parallel` lies in a model's transformer_options, and the copies in a run's models."""

TEAM_KEY = "clear_parallel_team"
"""Where the `Team` of a sampling run lies."""

_Shares = dict[tuple[torch.device, ...], tuple[float, ...]]
_MEASURED: weakref.WeakKeyDictionary[nn.Module, _Shares] = weakref.WeakKeyDictionary()
"""Model -> devices -> the shares that were measured, so that a repeated run is the same."""


@dataclass(frozen=True)
class Parallel:
    """What the node asks for.

    Attributes:
        devices: That share a picture; the first is replaced by the one that the host samples on.
        shares: Of each device, or None where they are measured.
    """

    devices: tuple[torch.device, ...]
    shares: tuple[float, ...] | None = None


def with_parallel(
    model: ModelPatcher,
    devices: tuple[torch.device, ...],
    shares: tuple[float, ...] | None = None,
    node_id: str | None = None,
) -> ModelPatcher:
    """Return a clone of the model that several devices compute together.

    Args:
        model: A MODEL, left as it is.
        devices: That share a picture. One alone changes nothing.
        shares: Of each device, or None to measure them where the devices differ.
        node_id: The node that shows the report.

    Raises:
        ValueError: The model's architecture is not supported.
    """
    require_family(model)
    model = with_settings(model, node_id=node_id, about="parallel:")
    options = model.model_options["transformer_options"]
    if PARALLEL_KEY not in options:
        share_calls(model, PARALLEL_KEY, share_run)
    options[PARALLEL_KEY] = Parallel(devices, shares)
    return model


def devices_of(model: ModelPatcher) -> int:
    """Return how many devices are to share the model's calls, 1 without CLEAR Parallel."""
    asked: Parallel | None = model.model_options.get("transformer_options", {}).get(PARALLEL_KEY)
    return 1 if asked is None else len(asked.devices)


def share_calls(model: ModelPatcher, key: str, run: Callable[..., Any]) -> None:
    """Install the wrappers by which the team of a run computes a cloned model's calls.

    Args:
        model: Changed.
        key: Of the wrappers.
        run: Wrapper of a sampling run that makes the team.
    """
    options = model.model_options
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, run),
        (WrappersMP.PREPARE_SAMPLING, prepare),
        (WrappersMP.APPLY_MODEL, share_call),
    ):
        add_wrapper_with_key(kind, key, wrapper, options, is_model_options=True)
        if kind != WrappersMP.OUTER_SAMPLE:
            _put_first(options["transformer_options"]["wrappers"][kind], key)


def _put_first(wrappers: dict[str, Any], key: str) -> None:
    """Put a wrapper around all others of its kind: each rank runs these."""
    others = {name: wrappers.pop(name) for name in list(wrappers) if name != key}
    wrappers.update(others)


def share_run(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Make copies and threads for one sampling run, and end them with it."""
    guider = executor.class_obj
    model: ModelPatcher = guider.model_patcher
    options = guider.model_options["transformer_options"]
    asked: Parallel = options[PARALLEL_KEY]
    devices = [model.load_device, *asked.devices[1:]]
    why = why_one_device(model, options)
    if why is None and len(devices) < 2:
        why = "there is one device"
    if why is not None:
        note(options, f"parallel: one device computes everything: {why}")
        return executor(*args, **kwargs)
    copies = COPIES.of(model, devices[1:])
    register_hooks(copies, guider.conds, guider.model_options)
    nets, networks = copied_nets(guider.conds, devices[1:])
    model.set_additional_models(PARALLEL_KEY, [*copies, *nets])
    try:
        with _team(model, copies, devices, asked) as team:
            options[TEAM_KEY] = team
            options[NETS_KEY] = TeamNets(team, networks)
            try:
                return executor(*args, **kwargs)
            finally:
                del options[TEAM_KEY], options[NETS_KEY]
                if team.calls:
                    note(options, team.describe())
    finally:
        model.remove_additional_models(PARALLEL_KEY)
        for one in copies:
            one.restore_hook_patches()


@contextmanager
def _team(
    model: ModelPatcher, copies: list[ModelPatcher], devices: list[torch.device], asked: Parallel
) -> Generator[Team]:
    broken = corrupting_pairs(list(dict.fromkeys(devices)))
    ranks = [
        Rank(one, device, frozenset(by for by, to in broken if to == device))
        for one, device in zip((model, *copies), devices, strict=True)
    ]
    known = _MEASURED.setdefault(model.model, {})
    shares = asked.shares or known.get(tuple(devices)) or (1.0,) * len(devices)
    alike = len({name_of(device) for device in devices}) == 1
    measured = asked.shares is not None or alike or tuple(devices) in known
    team = Team(ranks, Crew(devices[1:]), shares, measured)
    try:
        yield team
        if not alike and asked.shares is None:
            known[tuple(devices)] = team.shares
    finally:
        team.crew.stop()


def share_call(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Compute one model call on all ranks of the run's team."""
    options = dict(transformer_options or {})
    team: Team | None = options.get(TEAM_KEY)
    network = executor.class_obj.diffusion_model
    family = family_of(network)
    arguments = CallArguments((x, t, c_concat, c_crossattn), control, options, kwargs)
    if team is None or family is None or SEAT_KEY in options:
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    geometry = geometry_of_call(family, network, x, kwargs, c_crossattn)
    partition = partition_of(geometry, team.shares, options)
    why = partition if isinstance(partition, str) else None
    why = why or why_not_call(family, kwargs, control, geometry.image)
    if why is not None or isinstance(partition, str):
        note(options, f"parallel: one device computes a call: {why}")
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    return team.compute(executor, family, geometry, partition, arguments)


def prepare(
    executor: Any, model: ModelPatcher, noise_shape: Any, conds: Any, *args: Any, **kwargs: Any
) -> Any:
    """Load the models with an estimate for the largest band and its halo, not for the picture."""
    given = kwargs.get("model_options") or model.model_options
    options = given.get("transformer_options", {})
    team: Team | None = options.get(TEAM_KEY)
    if team is not None:
        noise_shape = band_shape(model, noise_shape, settings_of(model), team.shares)
    return executor(model, noise_shape, conds, *args, **kwargs)


def band_shape(
    model: ModelPatcher, shape: Sequence[int], settings: Settings, shares: Sequence[float]
) -> list[int]:
    """Return the shape of the largest band of a latent, with its halo.

    Args:
        model: The MODEL.
        shape: Of the latents, ``[..., height, width]``.
        settings: What CLEAR's nodes ask for; full attention needs the keys of the whole picture.
        shares: Of the ranks.
    """
    *others, height, width = shape
    patch = require_family(model).patch(plain_module(model.get_model_object("diffusion_model")))
    window = settings.largest_window
    halo = 2 * window.reach * patch if window is not None else 0
    longer = max(height, width)
    band = min(longer, math.ceil(longer * max(shares) / sum(shares)) + halo)
    return [*others, band, width] if height >= width else [*others, height, band]


def note(options: dict[str, Any], text: str) -> None:
    """Add a line to the report of a run, if there is one."""
    report: RunReport | None = options.get(REPORT_KEY)
    if report is not None:
        report.note(text)
