"""Read the example workflows, put the demo model in, and turn them into what the server runs.

A workflow is what the page saves: nodes with positions, and widget values by position. A prompt is
what the server takes: node ids with their inputs by name.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from demo.students import GUIDANCE, LORA, STUDENT, TRAINED_PX
from tools.host import ROOT
from tools.subgraphs import definitions, flattened

FOLDER = ROOT / "workflows"

DEMO_TYPES = {
    "UNETLoader": "CLEARDemoUNETLoader",
    "DualCLIPLoader": "CLEARDemoDualCLIPLoader",
    "ControlNetLoader": "CLEARDemoControlNetLoader",
}
DEMO_FILES = {
    "CLEARLoader": STUDENT,
    "LoraLoaderModelOnly": LORA,
    "VAELoader": "clear_demo_vae.safetensors",
}
KONTEXT_EDGE_PX = 1024  # FluxKontextImageScale has no size of its own; this is its square one
DEMO_SHRINK = Fraction(1024, TRAINED_PX)  # the demo paints 384 pixels where FLUX paints 1024
SIZES = {  # places of lengths in pixels
    "EmptySD3LatentImage": (0, 1),
    "ImageScale": (1, 2),
    "CLEARUpscale": (0, 11),
    "ImageScaleToMaxDimension": (1,),
    "CLEAR Upscale Stage": (0,),  # a subgraph, by its name
}
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
PAGE_ONLY = ("Note", "MarkdownNote", "Reroute", "PrimitiveNode")
MUTED, BYPASSED = 2, 4

Workflow = dict[str, Any]
Node = dict[str, Any]
Prompt = dict[str, dict[str, Any]]
NodeId = int | str  # a text for nodes out of subgraphs
Source = tuple[NodeId, int]  # node id and output slot


def example_workflows() -> list[Path]:
    """List the example workflows."""
    return sorted(FOLDER.glob("*.json"))


def load(path: Path) -> Workflow:
    """Read a workflow."""
    return json.loads(path.read_text(encoding="utf-8"))


def with_demo_models(workflow: Workflow, shrink: int | Fraction = 1) -> Workflow:
    """Return a copy that runs on the demo model: other loaders, the demo's files, no links.

    Kontext's own scaling, which knows sizes near one megapixel only, becomes one that shrinks.

    Args:
        workflow: As the page saves it.
        shrink: Divide all picture sizes by this, so that a CPU paints them in seconds.
    """
    workflow = copy.deepcopy(workflow)
    subgraphs = definitions(workflow)
    names = {kind: subgraph["name"] for kind, subgraph in subgraphs.items()}
    inside = [node for subgraph in subgraphs.values() for node in subgraph["nodes"]]
    for node in [*workflow["nodes"], *inside]:
        values = node.get("widgets_values")
        node["properties"].pop("models", None)
        if node["type"] in DEMO_TYPES:
            node["type"] = DEMO_TYPES[node["type"]]
            node["properties"] = {"Node name for S&R": node["type"]}
        elif node["type"] in DEMO_FILES:
            values[0] = DEMO_FILES[node["type"]]
        elif node["type"] == "FluxGuidance":
            values[0] = GUIDANCE
        elif node["type"] == "FluxKontextImageScale":
            node["type"] = "ImageScale"
            node["properties"] = {"Node name for S&R": node["type"]}
            edge_px = int(KONTEXT_EDGE_PX // shrink)
            node["widgets_values"] = ["lanczos", edge_px, edge_px, "center"]
            continue
        for place in SIZES.get(names.get(node["type"], node["type"]), ()):
            values[place] = int(values[place] // shrink)
    return workflow


def nodes_of_type(workflow: Workflow, kind: str) -> list[Node]:
    """Return the nodes of one type, to be changed in place."""
    return [node for node in workflow["nodes"] if node["type"] == kind]


def to_prompt(workflow: Workflow, object_info: Mapping[str, Any]) -> Prompt:
    """Turn a workflow into a prompt, as the page does when it queues one.

    Args:
        workflow: As the page saves it.
        object_info: The server's description of the node types that occur.
    """
    workflow = flattened(workflow)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    sources = {link[0]: (link[1], link[2]) for link in workflow["links"]}
    prompt: Prompt = {}
    for node in sorted(nodes.values(), key=lambda node: node["order"]):
        if node["type"] in PAGE_ONLY or node["mode"] in (MUTED, BYPASSED):
            continue
        inputs = dict(widget_values(node, object_info[node["type"]])) | node.get("promoted", {})
        for socket in node["inputs"]:
            source = follow(sources.get(socket["link"]), socket["type"], nodes, sources)
            if source is not None:
                inputs[socket["name"]] = [str(source[0]), source[1]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def widget_values(node: Node, info: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a node's widgets."""
    values = iter(node.get("widgets_values", ()))
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            settings = options[0] if options else {}
            is_widget = isinstance(kind, list) or kind in WIDGET_TYPES
            if not is_widget or settings.get("forceInput"):
                continue
            for value in values:
                yield name, value
                break
            else:  # saved before the node had it: the page takes its default
                if "default" in settings:
                    yield name, settings["default"]
            if settings.get("control_after_generate"):
                next(values, None)  # the page's own widget, such as "randomize"


def follow(
    source: Source | None,
    kind: str,
    nodes: Mapping[NodeId, Node],
    sources: Mapping[NodeId, Source],
) -> Source | None:
    """Find what feeds an input: a bypassed node hands on its first input of the output's type."""
    while source is not None:
        node = nodes[source[0]]
        if node["mode"] == MUTED:
            return None
        if node["mode"] != BYPASSED:
            return source
        fits = (socket for socket in node["inputs"] if socket["type"] == kind)
        source = next((sources.get(socket["link"]) for socket in fits), None)
    return None
