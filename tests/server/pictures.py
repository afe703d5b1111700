"""What the tests over HTTP ask of prompts and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from narrow_vae.places import with_narrow_vae
from PIL import Image


def example(name: str, shrink: int = 8) -> dict[str, Any]:
    """Read an example workflow, with the demo model, the narrow VAE and small pictures."""
    from tools import workflows

    workflow = workflows.load(workflows.FOLDER / f"{name}.json")
    return with_narrow_vae(workflows.with_demo_models(workflow, shrink=shrink))


def text_to_image(steps: int = 4, seed: int = 42) -> dict[str, Any]:
    """Read the example that paints a picture from text, at 128 x 128, with few steps."""
    workflow = example("01 Text to image at 2048 pixels", shrink=16)
    node(workflow, "CLEARHighRes")["mode"] = 4  # bypassed: it is for larger pictures
    node(workflow, "VAEDecodeTiled").update(type="VAEDecode", widgets_values=[])
    values = node(workflow, "KSampler")["widgets_values"]
    values[0], values[2] = seed, steps
    return workflow


def node(workflow: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the only node of a type."""
    (found,) = [node for node in workflow["nodes"] if node["type"] == kind]
    return found


def prompt_of(server: Any, workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn a workflow into what the server runs."""
    from tools import workflows

    return workflows.to_prompt(workflow, server.object_info())


def without_clear(workflow: dict[str, Any]) -> dict[str, Any]:
    """Take our node out and join what it was between."""
    clear = node(workflow, "CLEARLoader")
    ((_, unet, slot, *_),) = [link for link in workflow["links"] if link[3] == clear["id"]]
    links = [link for link in workflow["links"] if link[3] != clear["id"]]
    joined = [
        [link[0], unet, slot, *link[3:]] if link[1] == clear["id"] else link for link in links
    ]
    nodes = [node for node in workflow["nodes"] if node is not clear]
    return {**workflow, "nodes": nodes, "links": joined}


def pixels(path: Path) -> np.ndarray:
    """Decode a picture fully."""
    with Image.open(path) as picture:
        return np.asarray(picture)


def saved_report(path: Path) -> str:
    """Read what the pack wrote into a picture's metadata."""
    with Image.open(path) as picture:
        prompt = json.loads(picture.info["prompt"])
    return "\n".join(node.get("_meta", {}).get("clear_attention", "") for node in prompt.values())
