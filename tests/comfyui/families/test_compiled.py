"""Blocks that are named by hooks of our own, in models that torch compiles."""

from __future__ import annotations

from ..sampling_fixtures import check_compilations
from .zoo import ENTRIES
from .zoo_models import conditioning, latent, sampled

RADIUS = 2


def test_a_compiled_model_gives_the_same_picture_and_compiles_no_more_after_the_second_step(
    zoo_model, nodes, reports
):
    """Dense at first, then local: the graph of the one is none for the other."""
    entry = ENTRIES["qwen_image"]

    def run(model, steps, cfg):
        return sampled(model, latent(entry), conditioning(entry, 5), steps=steps)

    window = nodes.CLEARAttention(
        zoo_model("qwen_image"), RADIUS, start_percent=0.05, dense_blocks="joint 1"
    )
    frames = check_compilations(window, run)
    assert frames[0] < frames[1]
    assert not reports[-1].missed
    assert {path.backend for path in reports[-1].calls} > {"dense"}
