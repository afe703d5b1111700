"""CLEAR with the host's own model nodes, in both orders: as the same node with a mask by hand."""

from __future__ import annotations

import inspect

import pytest
import torch

from ..flux_runs import RADIUS, inputs, sampled, window_by_hand, with_override

SIZE = (26, 20)
GRID = (13, 10)


def result(executed):
    """Return the first output of a node, of either of the host's forms."""
    return executed.args[0] if hasattr(executed, "args") else executed[0]


def easy_cache(model):
    from comfy_extras.nodes_easycache import EasyCacheNode

    return result(EasyCacheNode.execute(model, 0.5, 0.0, 1.0, verbose=False))


def lazy_cache(model):
    from comfy_extras.nodes_easycache import LazyCacheNode

    return result(LazyCacheNode.execute(model, 0.5, 0.0, 1.0, verbose=False))


def context_windows(model):
    """Windows of 16 of the 26 rows, which is 8 rows of tokens."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode as Node

    windows = {"context_length": 16, "context_overlap": 6, "context_stride": 1, "dim": 2}
    options = {"context_schedule": "standard_static", "fuse_method": "pyramid"}
    known = inspect.signature(Node.execute).parameters
    off = {name: False for name in ("freenoise", "causal_window_fix") if name in known}
    return result(Node.execute(model, **windows, **options, closed_loop=False, **off))


def differential_diffusion(model):
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    return result(DifferentialDiffusion.execute(model))


def skip_layer_guidance(model):
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    older = getattr(SkipLayerGuidanceDiT(), "skip_guidance", None)
    return result((older or SkipLayerGuidanceDiT.execute)(model, 2.0, 0.0, 1.0, "0", "1"))


def perturbed_attention(model):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return result(PerturbedAttentionGuidance.execute(model, 2.0))


def rescale_cfg(model):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return result(RescaleCFG().patch(model, 0.7))


def model_sampling(model):
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    return result(ModelSamplingFlux().patch(model, 1.15, 0.5, 1024, 1024))


def compiled(model, *keys):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = model.clone()
    set_torch_compile_wrapper(model=model, backend="eager", keys=list(keys))
    return model


NODES = {
    "EasyCache": easy_cache,
    "LazyCache": lazy_cache,
    "context windows": context_windows,
    "differential diffusion": differential_diffusion,
    "skip layer guidance": skip_layer_guidance,
    "perturbed attention": perturbed_attention,  # for UNets: without effect on FLUX
    "RescaleCFG": rescale_cfg,
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_its_own_effect_on_the_window(name, flux_model, nodes, lines, caplog):
    """In front of the window and behind it."""
    node, base = NODES[name], flux_model("b")
    rows = 8 if name == "context windows" else GRID[0]
    arguments = {"size": SIZE, "steps": 4}
    if name == "differential diffusion":
        arguments["mask"] = torch.linspace(0, 1, SIZE[1]).expand(1, 1, *SIZE)

    def window(model):
        return nodes.CLEARAttention(model, RADIUS)

    expected = sampled(with_override(node(base), window_by_hand(rows, GRID[1])), **arguments)
    for local in (window(node(base)), node(window(base))):
        caplog.clear()
        torch.testing.assert_close(sampled(local, **arguments), expected, atol=1e-4, rtol=1e-4)
        report = "\n".join(lines())
        assert f"{rows} x 10 image tokens" in report and "dense" not in report
    if name != "perturbed attention":
        assert not torch.allclose(sampled(window(base), **arguments), expected, atol=1e-3)


def test_the_schedule_is_that_of_the_model_s_sampling(flux_model, nodes, run):
    """A shift moves the noise level at which a share of the schedule lies."""
    shifted = model_sampling(flux_model("b"))
    half = nodes.CLEARAttention(shifted, RADIUS, end_percent=0.5)
    plain, moved = (
        model.get_model_object("model_sampling").percent_to_sigma(0.5)
        for model in (flux_model("b"), shifted)
    )
    between = inputs() | {"timestep": torch.tensor([(plain + moved) / 2])}
    always = nodes.CLEARAttention(shifted, RADIUS)
    expected = always if moved < plain else shifted
    assert abs(moved - plain) > 0.05
    assert torch.equal(run(half, **between), run(expected, **between))
    unshifted = nodes.CLEARAttention(flux_model("b"), RADIUS, end_percent=0.5)
    assert not torch.equal(run(unshifted, **between), run(half, **between))


@pytest.mark.parametrize(
    ("name", "key", "order"),
    [("a", "diffusion_model", "before"), ("b", "diffusion_model.single_blocks.1", "after")],
)
def test_a_compiled_model_gives_the_same_picture(name, key, order, flux_model, nodes):
    """The whole model or some blocks, as this host's node and others do it."""
    base = flux_model(name)
    window = nodes.CLEARAttention(base, RADIUS)
    first = order == "before"
    model = nodes.CLEARAttention(compiled(base, key), RADIUS) if first else compiled(window, key)
    arguments = {"size": SIZE, "steps": 2, "cfg": 1.0}
    expected = sampled(window, **arguments)
    torch.testing.assert_close(sampled(model, **arguments), expected, atol=1e-4, rtol=1e-4)
