"""Replay: a worker makes its MODEL by running the prompt's nodes above ours, with the host's own
executor.
"""

from __future__ import annotations

import importlib
import itertools
from typing import Any

from comfy.model_patcher import ModelPatcher

from .prompt import CLUSTER_NODE, Prompt

RECEIVER = "CLEARClusterReceiver"
"""Class of the node that stands in our place in a worker's prompts."""


class Receiver:
    """A node that keeps the MODEL that it is given; the host runs it in each prompt."""

    RETURN_TYPES = ()
    FUNCTION = "receive"
    OUTPUT_NODE = True
    CATEGORY = ""

    received: ModelPatcher | None = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")  # equal to nothing: never taken from the cache

    def receive(self, model: ModelPatcher) -> tuple[()]:
        Receiver.received = model
        return ()


class _Silent:
    """The host's server, as far as its executor needs one."""

    client_id: str | None = None
    last_node_id: str | None = None
    last_prompt_id: str | None = None
    sockets_metadata: dict[str, Any] = {}  # noqa: RUF012 - of the one server

    def send_sync(self, *_: Any, **__: Any) -> None: ...

    def queue_updated(self) -> None: ...


class Replay:
    """Makes MODELs from prompts; what a later prompt shares with an earlier one is not run again.

    The host's cache goes by the content of nodes, and keeps what the last prompt has.
    """

    def __init__(self) -> None:
        execution: Any = importlib.import_module("execution")
        importlib.import_module("nodes").NODE_CLASS_MAPPINGS[RECEIVER] = Receiver
        sizes = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        self._executor = execution.PromptExecutor(
            _Silent(), cache_type=execution.CacheType.CLASSIC, cache_args=sizes
        )
        self._numbers = itertools.count()

    def model(self, prompt: Prompt, node_id: str) -> ModelPatcher:
        """Return the MODEL that a CLEAR Cluster node of a prompt gets.

        Args:
            prompt: The node, its like, and all nodes above them.
            node_id: The node.

        Raises:
            RuntimeError: A node has failed.
            BaseException: The host's, where the run was interrupted.
        """
        nodes = {one: _received(node) for one, node in prompt.items()}
        Receiver.received = None
        name = f"clear_cluster_{next(self._numbers)}"
        self._executor.execute(nodes, name, {}, [node_id])
        model, Receiver.received = Receiver.received, None
        if model is None:
            raise RuntimeError(_why(self._executor.status_messages))
        return model


def _received(node: Any) -> dict[str, Any]:
    if node["class_type"] != CLUSTER_NODE:
        return dict(node)
    return {"class_type": RECEIVER, "inputs": {"model": node["inputs"]["model"]}}


def _why(messages: list[tuple[str, Any]]) -> str:
    for event, data in messages:
        if event == "execution_error":
            return f"the node {data.get('node_type')} failed: {data.get('exception_message')}"
        if event == "execution_interrupted":
            return "it was interrupted"
    return "no node gave a model"
