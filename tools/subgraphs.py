"""Take subgraphs out of a workflow: their nodes come to stand beside all others, as in a prompt.

A node inside is then called ``<id of the subgraph's node>:<its own id>``, as the page calls it.
"""

from __future__ import annotations

import copy
from typing import Any

Workflow = dict[str, Any]
Node = dict[str, Any]
Link = list[Any]  # id, origin and its slot, target and its slot, type

ENTRY, EXIT = -10, -20  # what links inside name a subgraph's own inputs and outputs by


def definitions(workflow: Workflow) -> dict[str, Workflow]:
    """Return a workflow's subgraphs by the type of their nodes."""
    return {entry["id"]: entry for entry in workflow.get("definitions", {}).get("subgraphs", ())}


def flattened(workflow: Workflow) -> Workflow:
    """Return a workflow without subgraphs, which must not hold others.

    Widgets that a subgraph shows on its node become ``promoted`` of the nodes inside: values by
    name, which count more than those inside.
    """
    known = definitions(workflow)
    nodes: list[Node] = []
    links: list[Link] = workflow["links"]
    for node in workflow["nodes"]:
        if node["type"] in known:
            inside, links = _opened(node, known[node["type"]], links)
            nodes += inside
        else:
            nodes.append(node)
    return {**workflow, "nodes": nodes, "links": links, "definitions": {}}


def _opened(node: Node, subgraph: Workflow, links: list[Link]) -> tuple[list[Node], list[Link]]:
    """Return the nodes inside a subgraph's node, and the workflow's links without that node."""

    def named(number: int | None) -> str:
        return f"{node['id']}:{number}"

    inside: dict[int, Node] = {entry["id"]: entry for entry in copy.deepcopy(subgraph["nodes"])}
    for number, entry in inside.items():
        entry |= {"id": named(number), "promoted": {}}
        entry["order"] = node["order"] + entry["order"] / len(inside)
        for socket in entry["inputs"]:
            socket["link"] = named(socket["link"])

    shown = [socket["name"] for socket in node["inputs"] if "widget" in socket]
    values = dict(zip(shown, node["widgets_values"], strict=True))
    fed = {link[4]: link[1:3] for link in links if link[3] == node["id"]}
    exits: dict[int, list[Any]] = {}
    added: list[Link] = []
    for link in subgraph["links"]:
        origin, slot, target = link["origin_id"], link["origin_slot"], link["target_id"]
        source = fed.get(slot) if origin == ENTRY else [named(origin), slot]
        if source is None:
            socket = inside[target]["inputs"][link["target_slot"]]
            name = subgraph["inputs"][slot]["name"]
            inside[target]["promoted"] |= {socket["name"]: values[name]} if name in values else {}
        elif target == EXIT:
            exits[link["target_slot"]] = source
        else:
            added.append(
                [named(link["id"]), *source, named(target), link["target_slot"], link["type"]]
            )
    joined = [
        [link[0], *exits[link[2]], *link[3:]] if link[1] == node["id"] else link
        for link in links
        if link[3] != node["id"]
    ]
    return list(inside.values()), joined + added
