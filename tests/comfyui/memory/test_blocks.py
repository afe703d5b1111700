"""CLEAR Low Memory among other nodes: which blocks run in slices, and which are left alone."""

from __future__ import annotations

import pytest
import torch

from ..families import test_sd3 as sd3
from ..flux_runs import inputs
from ..low_memory_fixtures import SLICE, same


def test_no_wide_layer_sees_more_than_a_slice(flux_model, nodes, run, lengths):
    arguments = inputs(height=47, width=30, text=40)
    run(nodes.CLEARLowMemory(flux_model("b"), SLICE), **arguments)
    assert max(lengths) == SLICE
    lengths.clear()
    run(flux_model("b"), **arguments)
    assert max(lengths) == 24 * 15 + 40


def test_no_wide_layer_sees_more_than_a_slice_on_sd3(sd3_model, nodes, run, lengths):
    arguments = sd3.inputs(height=33, width=30)
    run(nodes.CLEARLowMemory(sd3_model("3.5-medium"), SLICE), **arguments)
    assert max(lengths) == SLICE


def test_layers_with_a_forward_of_their_own_are_called_whole(flux_model, nodes, run):
    import comfy.ops

    class Packed(comfy.ops.disable_weight_init.Linear):
        """Stands for GGUF and scaled fp8: its weight is not what it multiplies by."""

        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight * 2, self.bias)

    model, arguments = flux_model("a"), inputs(height=30, width=40)
    for block in model.model.diffusion_model.single_blocks:
        block.linear1.__class__ = Packed
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments), run(model, **arguments))


def test_of_two_nodes_the_last_one_wins(flux_model, nodes, run, lengths):
    model = nodes.CLEARLowMemory(nodes.CLEARLowMemory(flux_model("b"), SLICE), 100)
    run(model, **inputs(height=47, width=30))
    assert max(lengths) == 100


@pytest.mark.parametrize("after", [False, True], ids=["before ours", "after ours"])
def test_another_node_may_replace_a_block_around_ours(after, flux_model, nodes, run, lengths):
    def halved(args, extra):
        out = extra["original_block"](args)
        return {**out, "img": out["img"] * 0.5}

    def replaced(model):
        model = model.clone()
        model.set_model_patch_replace(halved, "dit", "single_block", 1)
        return model

    arguments = inputs(height=30, width=40)
    model = flux_model("b")
    expected = run(replaced(model), **arguments)
    assert not torch.allclose(expected, run(model, **arguments), atol=1e-3)
    low = nodes.CLEARLowMemory(model if after else replaced(model), SLICE)
    lengths.clear()
    same(run(replaced(low) if after else low, **arguments), expected)
    assert max(lengths) == SLICE


def test_blocks_that_another_node_changed_are_left_to_it(flux_model, nodes, run):
    model, arguments = flux_model("b"), inputs(height=30, width=40)
    block = model.model.diffusion_model.single_blocks[1]
    forward = block.forward
    block.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 0.5
    expected = run(model, **arguments)
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments), expected)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["double", "single"])
def test_what_overflows_in_half_precision_stays_finite(kind, flux_model, product):
    flux = product("comfyui.slicing.flux")
    model = flux_model("b", torch.float16).model.diffusion_model
    block = (model.double_blocks if kind == "double" else model.single_blocks)[0]
    last = block.txt_mlp[2] if kind == "double" else block.linear2
    last.weight.data = last.weight.data.clamp(-1, 1) * 60_000
    generator = torch.Generator().manual_seed(7)
    x, txt, vec = (
        torch.randn(*shape, generator=generator).half() * 30
        for shape in ((1, 20, 128), (1, 9, 128), (1, 128))
    )
    args = {"img": x, "txt": txt, "vec": vec, "pe": None, "transformer_options": {}}
    if kind == "single":
        del args["txt"]
    out = getattr(flux, kind)(block, args, 8)
    changed = out["txt" if kind == "double" else "img"]
    assert changed.isfinite().all()
    assert changed.abs().max() == 65504


def test_every_model_call_gets_the_same_functions(flux_model, nodes, run):
    """Or torch.compile would compile again in every step."""
    from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

    seen = []

    def record(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or args[-1]
        seen.append(options["patches_replace"]["dit"])
        return executor(*args, **kwargs)

    model = nodes.CLEARLowMemory(nodes.CLEARLowMemory(flux_model("b"), SLICE), SLICE)
    options = model.model_options
    add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", record, options, is_model_options=True)
    for seed in (0, 1):
        run(model, **inputs(height=30, width=40, seed=seed))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5


def test_blocks_that_another_node_works_inside_are_left_to_the_host(
    flux_model, nodes, run, lengths
):
    model = nodes.CLEARLowMemory(flux_model("b"), SLICE)
    model.set_model_patch(lambda *args, **kwargs: {}, "attn1_patch")
    run(model, **inputs(height=30, width=40))
    assert max(lengths) == 300 + 40


def test_blocks_stay_whole_while_their_outputs_are_recorded(flux_model, nodes, run, lengths):
    shapes = []

    class Recorder:
        def add(self, block, output):
            shapes.append(tuple(output.shape))

    model = nodes.CLEARLowMemory(flux_model("b"), SLICE)
    model.model_options["transformer_options"]["clear_attention_recorder"] = Recorder()
    run(model, **inputs(height=30, width=40))
    assert max(lengths) == 300 + 40
    assert shapes == [(1, 340, 128)] * 5


def test_blocks_stay_whole_while_gradients_are_computed(flux_model, nodes, lengths):
    model = nodes.CLEARLowMemory(flux_model("b"), SLICE)
    arguments = inputs(height=30, width=40)
    options = model.model_options["transformer_options"]
    with torch.enable_grad():
        model.model.apply_model(
            arguments["x"],
            arguments["timestep"],
            c_crossattn=arguments["context"],
            y=arguments["y"],
            transformer_options=options,
        )
    assert max(lengths) == 300 + 40


@torch.inference_mode()
def test_a_result_that_the_host_has_read_holds_no_memory(flux_model, product):
    memory = product("comfyui.memory.blocks")
    double = product("comfyui.families").FAMILIES[0].blocks[0]
    model = flux_model("b").model.diffusion_model
    options = {memory.MEMORY_CALL_KEY: memory.MemoryCall(memory.LowMemory(4), model, None)}
    args = {"vec": torch.zeros(1, 128), "pe": None, "transformer_options": options}
    args |= {"img": torch.zeros(1, 16, 128), "txt": torch.zeros(1, 3, 128)}
    first = memory._replace(double, 0)(args, {})
    assert set(first) == {"img", "txt"}
    second = memory._replace(double, 1)({**args, **first}, {})
    assert first == {}
    assert set(second) == {"img", "txt"}


def test_hooks_on_a_layer_see_each_token_once(flux_model, nodes, run):
    model, seen = flux_model("b"), []
    layer = model.model.diffusion_model.double_blocks[0].img_attn.qkv
    layer.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    run(nodes.CLEARLowMemory(model, SLICE), **inputs(height=30, width=40))
    assert sum(seen) == 300
    assert max(seen) == SLICE


def test_references_with_a_timestep_of_their_own_are_left_to_the_host(flux_model, product):
    flux = product("comfyui.slicing.flux")
    block = flux_model("b").model.diffusion_model.single_blocks[0]
    x = torch.zeros(1, 8, 128)
    args = {"img": x, "vec": torch.zeros(1, 128), "pe": None, "transformer_options": {}}
    assert flux.why_not(block, args) is None
    twice = block.modulation(torch.zeros(1, 2, 128))[0]
    for vec in (torch.zeros(2, 128), torch.zeros(1, 2, 128), twice):
        assert "timestep of their own" in flux.why_not(block, {**args, "vec": vec})
