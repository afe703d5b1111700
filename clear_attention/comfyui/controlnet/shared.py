"""Run a ControlNet on the devices that share a picture, each for its own rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...parallel.partition import Partition
from ..core.calls.model_call import geometry_of_call
from ..core.calls.shared_nets import NETS_KEY, Local, SharedNets, SharedResiduals
from ..core.geometry import Geometry
from ..families import HostFamily, plain_module
from .reuse import Control
from .supported import family_of_net


class SharedRun:
    """One call of a ControlNet that several ranks compute."""

    def __init__(
        self,
        nets: SharedNets,
        network: nn.Module,
        family: HostFamily,
        geometry: Geometry,
        partition: Partition,
    ) -> None:
        self._nets = nets
        self._network = network
        self._family = family
        self._geometry = geometry
        self._partition = partition
        self._parts: list[dict[str, Any]] = []

    @contextmanager
    def on_all_ranks(self, local: Local) -> Generator[None]:
        """Let a call of the network run on all ranks; the caller gets what rank 0 returns.

        Args:
            local: Makes the attention of a rank's copy local.
        """
        original = self._network.forward

        @functools.wraps(original)
        def forward(**arguments: Any) -> Any:
            # The first rank runs the network itself, by its own method.
            del self._network.forward
            self._parts = self._nets.run(
                self._network, self._family, self._geometry, self._partition, local, arguments
            )
            return self._parts[0]

        self._network.forward = forward
        try:
            yield
        finally:
            vars(self._network).pop("forward", None)

    def merged(self, merge: Callable[[Any], Control]) -> SharedResiduals:
        """Return the residuals of all ranks.

        Args:
            merge: Scales what a network returns, as the host does.
        """
        return SharedResiduals(self._partition, [merge(part) for part in self._parts])


def shared_run(network: nn.Module, latent: Tensor, options: Any) -> SharedRun | None:
    """Return how several ranks run a network, or None where one device does.

    Args:
        network: Of a ControlNet.
        latent: That it is called with.
        options: The transformer_options of the call.
    """
    nets: SharedNets | None = options.get(NETS_KEY)
    plain = plain_module(network)
    family = family_of_net(plain)
    if nets is None or family is None:
        return None
    geometry = geometry_of_call(family, plain, latent, {})
    partition = nets.partition_of(plain, family, geometry, options)
    return None if partition is None else SharedRun(nets, plain, family, geometry, partition)
