"""Blocks that are named by hooks of our own, in models that torch compiles."""

from __future__ import annotations

import torch

from ..sampling_fixtures import check_compilations
from .zoo import ENTRIES
from .zoo_models import conditioning, latent, sampled

RADIUS = 2


def compiled(model):
    """Compile a MODEL, as the host's node does."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = model.clone()
    set_torch_compile_wrapper(model=model, backend="eager")
    return model


def run(model, entry, steps=2):
    return sampled(model, latent(entry), conditioning(entry, 5), steps=steps)


def test_a_compiled_model_gives_the_same_picture(zoo_model, nodes, reports):
    """Dense at first, then local: the graph of the one is none for the other."""
    entry, model = ENTRIES["z_image"], zoo_model("z_image")
    late = nodes.CLEARAttention(model, RADIUS, start_percent=0.4, dense_blocks="joint 1")
    expected = run(late, entry)
    torch.compiler.reset()
    torch.testing.assert_close(run(compiled(late), entry), expected)
    assert not reports[-1].missed
    assert {path.backend for path in reports[-1].calls} > {"dense"}


def test_compiling_is_not_started_anew_at_each_step(zoo_model, nodes):
    entry, model = ENTRIES["z_image"], zoo_model("z_image")
    window = nodes.CLEARAttention(model, RADIUS, dense_blocks="joint 1")
    check_compilations(window, lambda model, steps, cfg: run(model, entry, steps))
