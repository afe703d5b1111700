"""The part of a prompt from which a worker makes its MODEL: all nodes above ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Prompt = Mapping[str, Mapping[str, Any]]
"""Node id -> its class and inputs, as the host's API takes them."""

CLUSTER_NODE = "CLEARCluster"


def upstream(prompt: Prompt, node_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return nodes and all that they depend on, with nothing but their classes and inputs.

    Args:
        prompt: Of the host.
        node_ids: The nodes to begin with.

    Raises:
        ValueError: A node is not in the prompt.
    """
    found: dict[str, dict[str, Any]] = {}
    waiting = list(node_ids)
    while waiting:
        node_id = waiting.pop()
        if node_id in found:
            continue
        if node_id not in prompt:
            raise ValueError(
                f"CLEAR Cluster must stand in the workflow itself, got node {node_id}, which "
                "another node has made. Workers could not make it again."
            )
        node = prompt[node_id]
        # Nothing else: the host also keeps there what it found out about changed files.
        found[node_id] = {"class_type": node["class_type"], "inputs": dict(node["inputs"])}
        waiting += [value[0] for value in node["inputs"].values() if is_link(value)]
    return found


def is_link(value: Any) -> bool:
    """Return whether an input is the output of another node."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (int, float))
        and not isinstance(value[1], bool)
    )


def cluster_nodes(prompt: Prompt) -> list[str]:
    """Return the ids of all CLEAR Cluster nodes of a prompt."""
    return [node_id for node_id, node in prompt.items() if node["class_type"] == CLUSTER_NODE]


def for_workers(prompt: Prompt, node_id: str) -> dict[str, dict[str, Any]]:
    """Return what a worker needs of a prompt: the nodes above all CLEAR Cluster nodes.

    Those of other CLEAR Cluster nodes are among them, so that a worker keeps their models too.

    Args:
        prompt: Of the host.
        node_id: The CLEAR Cluster node that runs.
    """
    return upstream(prompt, dict.fromkeys([node_id, *cluster_nodes(prompt)]))
