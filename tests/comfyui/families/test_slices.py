"""CLEAR Low Memory on every architecture: the widest layers run in slices, with the same result."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from .zoo import ENTRIES
from .zoo_models import conditioning, latent, present, sampled

SLICE = 16
PROMPT = 20  # longer than a slice where text has an MLP of its own
REST = {
    "flux2": "its text is 512 tokens long",
    "ovis": "the host's MLP of these blocks is not that of FLUX",
}

HALVES = {"pixeldit": 2}
"""How many parts the host itself cuts an MLP's input into."""


def run(model, entry, batch=1):
    getattr(model.model.diffusion_model, "clear_kv_cache", lambda: None)()
    noise = latent(entry, batch=batch)
    return sampled(model, noise, conditioning(entry, PROMPT), conditioning(entry, 9, seed=3))


@pytest.fixture
def rows_of(product):
    """Return the most rows that each linear layer of an MLP had in a run, by kind of block."""
    family_of = product("comfyui.families").family_of

    def rows(model, entry, batch=1):
        network, seen, hooks = model.model.diffusion_model, {}, []
        family = family_of(network)

        def see(kind, per_token, _, args):
            count = args[0].shape[:-1].numel() // per_token
            seen[kind] = max(seen.get(kind, 0), count)

        for kind in family.blocks:
            for block in kind.of(network):
                for name in kind.feed_forward:
                    times = int(family.layers.times(f"{kind.path}.{name}", network))
                    for layer in block.get_submodule(name).modules():
                        if isinstance(layer, nn.Linear):
                            hook = layer.register_forward_pre_hook(
                                lambda *a, k=kind.kind, t=times: see(k, t, *a)
                            )
                            hooks.append(hook)
        try:
            out = run(model, entry, batch)
        finally:
            for hook in hooks:
                hook.remove()
        return seen, out

    return rows


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", present())
def test_slices_give_the_result_of_the_whole(name, batch, zoo_model, nodes, rows_of):
    """No layer of an MLP sees more than a slice of each picture: of two with CFG, twice as many."""
    entry = ENTRIES[name]
    whole, expected = rows_of(zoo_model(name), entry, batch)
    low, actual = rows_of(nodes.CLEARLowMemory(zoo_model(name), SLICE), entry, batch)
    assert (actual - expected).abs().max() <= 4e-6 * expected.abs().max()
    assert low.keys() == whole.keys()
    for kind in low:
        assert low[kind] <= 2 * batch * SLICE or name in REST
        assert 2 * batch * SLICE < whole[kind] * HALVES.get(name, 1) or name in REST


@pytest.mark.parametrize("name", present())
def test_a_window_and_slices_go_together(name, zoo_model, nodes):
    entry = ENTRIES[name]
    local = nodes.CLEARAttention(zoo_model(name), 2)
    expected = run(local, entry)
    actual = run(nodes.CLEARLowMemory(local, SLICE), entry)
    assert (actual - expected).abs().max() <= 4e-6 * expected.abs().max()


@pytest.mark.parametrize("name", present())
def test_slices_leave_nothing_on_the_model(name, zoo_model, nodes):
    entry, model = ENTRIES[name], zoo_model(name)
    modules = [*model.model.diffusion_model.modules()]
    before, attributes = run(model, entry), [set(vars(module)) for module in modules]
    run(nodes.CLEARLowMemory(model, SLICE), entry)
    assert [set(vars(module)) for module in modules] == attributes
    assert run(model, entry).equal(before)


@pytest.mark.parametrize("name", present())
def test_the_report_of_a_window_names_each_kind_of_block_and_its_slices(
    name, zoo_model, nodes, reports, product
):
    entry = ENTRIES[name]
    run(nodes.CLEARLowMemory(nodes.CLEARAttention(zoo_model(name), 2), SLICE), entry)
    family = product("comfyui.families").family_of(zoo_model(name).model.diffusion_model)
    notes = [note for report in reports for note in report.notes]
    for kind in family.blocks:
        mine = [note for note in notes if note.startswith(f"memory: {kind.kind} blocks")]
        assert mine and (f"in slices of {SLICE} tokens" in mine[0] or name in REST), notes


@torch.inference_mode()
@pytest.mark.parametrize("name", ["qwen_image", "hidream", "lumina2"])
def test_an_mlp_that_another_node_changed_is_left_to_it(name, zoo_model, nodes):
    if name not in present():
        pytest.skip("the host has no such model")
    entry, model = ENTRIES[name], zoo_model(name)
    path = {"qwen_image": "img_mlp", "hidream": "block.ff_i", "lumina2": "feed_forward"}[name]
    block = next(iter(model.model.diffusion_model.get_submodule([*entry.blocks.values()][-1])))
    mlp = block.get_submodule(path)
    forward = mlp.forward
    mlp.forward = lambda x: 0.5 * forward(x)
    try:
        expected = run(model, entry)
        actual = run(nodes.CLEARLowMemory(model, SLICE), entry)
    finally:
        del mlp.forward
    assert (actual - expected).abs().max() <= 4e-6 * expected.abs().max()
    assert not torch.allclose(expected, run(model, entry), rtol=1e-3)


def test_every_model_call_gets_the_same_function(zoo_model, nodes):
    """Or torch.compile would compile again in every step."""
    entry, model, seen = ENTRIES["qwen_image"], zoo_model("qwen_image"), []
    mlp = model.model.diffusion_model.transformer_blocks[0].img_mlp
    hook = mlp.register_forward_pre_hook(lambda module, _: seen.append(vars(module)["forward"]))
    try:
        for _ in range(2):
            run(nodes.CLEARLowMemory(model, SLICE), entry)
    finally:
        hook.remove()
    assert len(seen) >= 2 and all(one is seen[0] for one in seen)
