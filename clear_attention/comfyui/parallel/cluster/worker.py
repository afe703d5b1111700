"""Worker: a rank above 0, in a process of its own. It makes its MODEL, and serves model calls."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import torch
import torch.distributed as dist
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, get_all_wrappers

from ....parallel.attention import Seat
from ....parallel.group import GroupTransport
from ....parallel.partition import Partition
from ....parallel.process_group import card_of, join_group, join_store
from ....parallel.transport import Aborted
from ...core.calls.model_call import SEAT_KEY, geometry_of_call
from ...core.calls.part import PICTURE_KEY
from ...core.patch import SETTINGS_KEY, nothing_kept, settings_of, with_settings
from ...families import require_family
from ..cut import moved
from ..devices import name_of
from ..node import band_shape
from ..team import model_call
from .inventory import Inventory, inventory
from .members import CONSEQUENCE
from .prompt import Prompt
from .replay import Replay
from .traits import ABOUT, Traits, traits

MEMORY, INTERRUPTED, ABORTED, OTHER = "memory", "interrupted", CONSEQUENCE, "other"
"""Kinds of errors that a session treats each in its own way."""


class Worker:
    """What a process does for the machine that samples; results are plain values."""

    def __init__(self) -> None:
        self.device: torch.device = comfy.model_management.get_torch_device()
        self._replay = Replay()
        self._model: ModelPatcher | None = None
        self._options: dict[str, Any] = {}
        self._run = contextlib.ExitStack()
        self._group: dist.ProcessGroup | None = None
        self._store: Any = None
        self._transport: GroupTransport | None = None

    def about(self) -> dict[str, Any]:
        """Return who this is."""
        return {
            "machine": socket.gethostname(),
            "address": str(importlib.import_module("ray").util.get_node_ip_address()),
            "process": os.getpid(),
            "device": str(self.device),
            "kind": name_of(self.device),
            "card": card_of(self.device),
        }

    def inventory(self, prompt: Prompt) -> Inventory:
        """Return what the prompt's nodes depend on here."""
        return inventory(prompt)

    def load(self, prompt: Prompt, node_id: str) -> Traits:
        """Make the MODEL of a CLEAR Cluster node, and return what it is.

        Args:
            prompt: The node and all above it.
            node_id: The node.
        """
        self.end()
        self._model = None
        with self._modes():
            made = self._replay.model(prompt, node_id)
            self._model = with_settings(made, node_id, about=ABOUT)  # as our node does
            return traits(self._model)

    def join(self, address: str, port: int, name: str, place: Sequence[Any]) -> None:
        """Join the session's group.

        Args:
            address: Of the machine that samples.
            port: Of its store.
            name: Of the group.
            place: Rank, size and backend.
        """
        self._group = None
        rank, size, backend = place
        own = self.about()["address"]
        with self._modes():
            self._store = self._store or join_store(address, port, size)
            self._group = join_group(self._store, name, rank, size, backend=backend, address=own)

    def begin(self, shape: Sequence[int], shares: Sequence[float]) -> None:
        """Load the model onto the device for a sampling run.

        Args:
            shape: Of the latents.
            shares: Of all ranks.
        """
        self.end()
        assert self._model is not None
        model = self._model
        comfy.model_management.interrupt_current_processing(False)
        with self._modes():
            given = comfy.model_patcher.create_model_options_clone(model.model_options)
            comfy.sampler_helpers.prepare_model_patcher(model, {}, given)
            band = band_shape(model, shape, settings_of(model), shares)
            comfy.sampler_helpers.prepare_sampling(model, torch.Size(band), {}, given)
            self._options = given["transformer_options"]
            self._options[PICTURE_KEY] = (shape[-2], shape[-1])
            self._run.enter_context(nothing_kept(model.model.diffusion_model))
            model.pre_run()
            self._run.callback(model.cleanup)

    def end(self) -> None:
        """End a sampling run; the model stays where it is until something else needs the room."""
        with self._modes():
            self._run.close()

    def call(self, message: Mapping[str, Any], residuals: Any) -> dict[str, Any]:
        """Compute this rank's part of a model call, and return what it took.

        Args:
            message: ``partition``, ``tensors``, ``options`` and ``others``.
            residuals: Of ControlNets, for this rank's rows.
        """
        assert self._model is not None and self._group is not None
        partition = Partition(**message["partition"])
        transport = self._transport = GroupTransport(self._group, self.device)
        begun = time.perf_counter()
        try:
            with self._modes():
                self._compute(message, residuals, Seat(partition, transport))
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
        except BaseException as error:
            transport.abort(error)
            self._group = None
            raise
        finally:
            self._transport = None
        taken = time.perf_counter() - begun
        return {
            "lines": len(partition.band(transport.rank)),
            "received": transport.received,
            "waited": transport.waited,
            "busy": taken - transport.waited,
        }

    def _compute(self, message: Mapping[str, Any], residuals: Any, seat: Seat) -> None:
        assert self._model is not None
        model: Any = self._model.model
        family = require_family(self._model)
        options = {**self._options, **message["options"], SEAT_KEY: seat}
        if SETTINGS_KEY in options:
            # What follows a run is the business of the machine that samples.
            options[SETTINGS_KEY] = dataclasses.replace(options[SETTINGS_KEY], observers=())
        x, _, _, context = message["tensors"]
        others = message["others"]
        geometry = geometry_of_call(family, model.diffusion_model, x, others, context)
        around = SimpleNamespace(wrappers=get_all_wrappers(WrappersMP.APPLY_MODEL, options), idx=-1)
        positional = moved([*message["tensors"], residuals, options], self.device)
        given = (positional, moved(others, self.device))
        model_call(around, family, geometry, self._model, seat, given)

    def abort(self) -> None:
        """Make a call that runs in another thread fail, and the making of a MODEL stop."""
        comfy.model_management.interrupt_current_processing(True)
        if self._transport is not None:
            self._transport.abort(RuntimeError("The run was stopped."))

    def kind_of(self, error: BaseException) -> str:
        """Return what kind of an error it is."""
        if isinstance(error, comfy.model_management.OOM_EXCEPTION):
            return MEMORY
        if isinstance(error, comfy.model_management.InterruptProcessingException):
            return INTERRUPTED
        return ABORTED if isinstance(error, Aborted) else OTHER

    @contextlib.contextmanager
    def _modes(self) -> Generator[None]:
        """Set what is each thread's own: Ray serves every call by another one."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        with torch.inference_mode():
            yield
