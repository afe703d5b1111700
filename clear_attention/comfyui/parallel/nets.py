"""ControlNets of a run that several devices share: a copy of each network for each rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...parallel.attention import Seat
from ...parallel.partition import Partition
from ..controlnet.net import LocalControlNet
from ..core.calls.shared_nets import Local
from ..core.geometry import Geometry
from ..families import HostFamily, plain_module
from .copies import COPIES
from .cut import moved, tokens_cut
from .partition import partition_of
from .team import Rank, Team


class TeamNets:
    """The networks that the ranks of a team have copies of. See `SharedNets`.

    Args:
        team: Of the run.
        copies: A network -> its copies, for the ranks from 1 on.
    """

    def __init__(self, team: Team, copies: Mapping[nn.Module, list[nn.Module]]) -> None:
        self._team = team
        self._copies = copies

    def partition_of(
        self,
        network: nn.Module,
        family: HostFamily,
        geometry: Geometry,
        options: Mapping[str, Any],
    ) -> Partition | None:
        if network not in self._copies or torch.is_grad_enabled():
            return None
        partition = partition_of(geometry, self._team.shares, options)
        return None if isinstance(partition, str) else partition

    def run(
        self,
        network: nn.Module,
        family: HostFamily,
        geometry: Geometry,
        partition: Partition,
        local: Local,
        arguments: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        networks = [network, *self._copies[network]]
        cut = family.net_cut
        assert cut is not None

        def on(rank: Rank, seat: Seat) -> dict[str, Any]:
            own = networks[seat.rank]
            with local(own, seat), tokens_cut(cut, family, own, geometry, seat):
                return own(**moved(dict(arguments), rank.device))

        return self._team.together(partition, on)


def copied_nets(
    conds: Any, devices: list[torch.device]
) -> tuple[list[ModelPatcher], dict[nn.Module, list[nn.Module]]]:
    """Return copies of the CLEAR ControlNets of a run, as patchers and by their networks.

    Args:
        conds: Of the run, by name.
        devices: Of the ranks from 1 on.
    """
    patchers: list[ModelPatcher] = []
    copies: dict[nn.Module, list[nn.Module]] = {}
    for net in _local_nets(conds):
        network = plain_module(net.control_model)
        if network not in copies and _is_shareable(net, network):
            made = COPIES.of(net.control_model_wrapped, devices)
            patchers += made
            copies[network] = [one.model for one in made]
    return patchers, copies


def _is_shareable(net: LocalControlNet, network: nn.Module) -> bool:
    family = net.family
    return family.net_cut is not None and net.control_model_wrapped.model is network


def _local_nets(conds: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[LocalControlNet]:
    for each in conds.values():
        for cond in each:
            net = cond.get("control")
            while net is not None:
                if isinstance(net, LocalControlNet):
                    yield net
                net = net.previous_controlnet
