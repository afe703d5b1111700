"""Make a clone of a model share each of its calls among machines, through the host's wrappers."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import nn

from ...core.patch import with_settings
from ...families import require_family
from ..node import PARALLEL_KEY, TEAM_KEY, note, share_calls
from ..one_device import why_one_device
from .connection import import_ray
from .prompt import Prompt, for_workers
from .session import CURRENT
from .team import ClusterTeam
from .traits import ABOUT, Traits, first_difference, traits

CLUSTER_KEY = "clear_cluster"
"""Where `Cluster` lies in a model's transformer_options."""

_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, int], tuple[float, ...]]] = (
    weakref.WeakKeyDictionary()
)
"""Model -> address and number of GPUs -> measured shares, so that a repeated run is the same."""


@dataclass(frozen=True)
class Cluster:
    """What the node asks for.

    Attributes:
        address: Of Ray.
        gpus: Number of workers.
        prompt: What workers run: our node and all above it.
        node_id: Of our node.
        traits: Of the MODEL that our node gets.
    """

    address: str
    gpus: int
    prompt: Prompt
    node_id: str
    traits: Traits = field(repr=False)


def with_cluster(
    model: ModelPatcher, address: str, gpus: int, prompt: Prompt, node_id: str
) -> ModelPatcher:
    """Return a clone of the model that this machine and workers compute together.

    Args:
        model: A MODEL, left as it is.
        address: "auto", "local", or host and port of Ray.
        gpus: Workers beside this process.
        prompt: That runs.
        node_id: Our node.

    Raises:
        ValueError: The model's architecture is not supported, other nodes share it already, or Ray
            is missing.
    """
    require_family(model)
    import_ray()
    options = model.model_options.get("transformer_options", {})
    for key, name in ((PARALLEL_KEY, "CLEAR Parallel"), (CLUSTER_KEY, "CLEAR Cluster")):
        if key in options:
            raise ValueError(
                f"CLEAR Cluster must be the only node that shares a model, got one behind {name}. "
                "Remove one of them."
            )
    model = with_settings(model, node_id=node_id, about=ABOUT)
    here = traits(model)
    share_calls(model, CLUSTER_KEY, share_run)
    asked = Cluster(address, gpus, for_workers(prompt, node_id), node_id, here)
    model.model_options["transformer_options"][CLUSTER_KEY] = asked
    return model


def share_run(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Let workers make their models for one sampling run, and compute its calls with them."""
    guider = executor.class_obj
    model: ModelPatcher = guider.model_patcher
    options = guider.model_options["transformer_options"]
    asked: Cluster = options[CLUSTER_KEY]
    why = why_one_device(model, options)
    if why is not None:
        note(options, f"cluster: this machine computes everything: {why}")
        return executor(*args, **kwargs)
    _require_no_hooks(guider.conds)
    _require_last(model, asked)
    session = CURRENT.of(asked.address, asked.gpus, model.load_device)
    session.load(asked.prompt, asked.node_id, asked.traits)
    known = _MEASURED.setdefault(model.model, {})
    team = ClusterTeam(session, model, known.get((asked.address, asked.gpus)))
    team.begin((args[0] if args else kwargs["noise"]).shape)
    options[TEAM_KEY] = team
    try:
        return executor(*args, **kwargs)
    finally:
        del options[TEAM_KEY]
        team.end()
        if team.calls:
            known[asked.address, asked.gpus] = team.shares
            note(options, team.describe())


def _require_last(model: ModelPatcher, asked: Cluster) -> None:
    difference = first_difference(traits(model), asked.traits)
    if difference is not None:
        raise ValueError(
            "CLEAR Cluster must be the last node in front of the sampler, got a model that another "
            f"node has changed behind it: {difference}. Workers run the nodes in front of CLEAR "
            "Cluster: put that node there."
        )


def _require_no_hooks(conds: Any) -> None:
    if any(one.get("hooks") is not None for each in conds.values() for one in each):
        raise ValueError(
            "CLEAR Cluster must get prompts without hooks, got some with LoRAs or other models of "
            "their own. Use CLEAR Parallel for them, or load the LoRA onto the model."
        )
