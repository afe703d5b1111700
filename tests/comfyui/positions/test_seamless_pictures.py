"""A picture that the demo's model paints with CLEAR Seamless, laid side by side with itself."""

from __future__ import annotations

import pytest
import torch

EDGE = 192
TOKEN_PX = 16
PROMPTS = (
    *("a photograph of galaxies", "a photograph of dandelions", "a photograph of leaves"),
    *("a photograph of mountains", "a brook", "a sunset"),
)
# The joint is one more border between tokens. Where it is one like the others, its step is larger
# than theirs by so many standard deviations once in a thousand times: Student's t for 11 others,
# 4.14 at 10 degrees of freedom, times the square root of 1 + 1 / 11.
THRESHOLD = 4.33


@pytest.fixture(scope="module")
def demo(host):
    """The demo's model and text encoder."""
    from demo.nodes.network import load_model
    from demo.nodes.text import DemoCLIP

    return load_model(), DemoCLIP()


def paint(model, clip):
    """Return the latents of all prompts."""
    from clear_attention.comfyui.distill.data.sampling import Painter, encode

    painter = Painter(3, "euler", "simple", 1.0, 3.5)
    prompts = [encode(clip, prompt) for prompt in PROMPTS]
    with torch.inference_mode():
        return painter.paint(model, prompts, range(5, 11), (EDGE, EDGE))


def seam(pictures, axis):
    """Return by how many standard deviations the step across the joint exceeds the others'.

    Only steps between tokens count, which are larger than those inside. Each picture counts alike.
    """
    steps = (pictures - pictures.roll(-1, axis)).abs().mean([i for i in (1, 2, 3) if i != axis])
    borders = steps[:, TOKEN_PX - 1 :: TOKEN_PX].double()
    level = (borders / borders.mean(1, keepdim=True)).log().mean(0)
    others = level[:-1]
    return float((level[-1] - others.mean()) / others.std())


def test_copies_side_by_side_show_no_seam_and_without_the_nodes_they_do(
    demo, vae, nodes, node_classes
):
    model, clip = demo
    seamless = paint(nodes.CLEARSeamless(model), clip)
    with torch.inference_mode():
        decoder = node_classes["CLEARSeamlessDecode"]
        pictures = decoder.execute({"samples": seamless}, vae).args[0]
        plain = vae.decode(paint(model, clip))
    for axis in (1, 2):
        assert seam(pictures, axis) < THRESHOLD
        assert seam(plain, axis) > THRESHOLD
