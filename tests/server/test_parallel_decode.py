"""CLEAR Parallel Decode in a real ComfyUI, over HTTP."""

from __future__ import annotations

import numpy as np

from .pictures import node, pixels, prompt_of, text_to_image


def large():
    """A picture of 256 x 256 pixels: of several tiles."""
    workflow = text_to_image(steps=1)
    node(workflow, "EmptySD3LatentImage")["widgets_values"][:2] = [256, 256]
    return workflow


def decoded(server, prompt, kind, **inputs):
    """Decode with a node, and return the picture and the node's last progress."""
    at = {node["class_type"]: key for key, node in prompt.items()}["VAEDecode"]
    prompt[at] = {"class_type": kind, "inputs": {**prompt[at]["inputs"], **inputs}}
    steps = []
    entry = server.run(prompt, on_progress=lambda found, *step: steps.append((found, step)))
    (path,) = server.images(entry)
    return pixels(path), [step for found, step in steps if found == at][-1:]


def test_the_picture_and_the_progress_are_those_of_the_hosts_tiled_decode(server):
    tiles = {"tile_size": 128, "overlap": 32}
    first, second = (prompt_of(server, large()) for _ in range(2))
    video = {"temporal_size": 64, "temporal_overlap": 8}
    alone, progress = decoded(server, first, "VAEDecodeTiled", **tiles, **video)
    several, same = decoded(server, second, "CLEARParallelDecode", **tiles, devices="cpu,cpu")
    np.testing.assert_array_equal(several, alone)
    assert several.shape == (256, 256, 3)
    assert same == progress
    assert same
