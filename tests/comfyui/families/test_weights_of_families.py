"""CLEAR weights on a model of every architecture: names, files, LoRAs, what is trained."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest
import torch

from clear_attention.families.names import HOST_PREFIX

from ..distil_fixtures import WordsCLIP
from ..weights.test_patches import patched_weights
from .zoo import ENTRIES
from .zoo_limits import UNTRAINABLE
from .zoo_models import COLUMNS, ROWS, build, conditioning, host_version, latent, present, sampled

pytestmark = pytest.mark.long

RADIUS, FACTOR, RANK = 3, 2, 2
VIDEO = ("hunyuan_video", "wan", "wan_5b")
"""Families whose weights have no names so far: pictures are not what they are for."""
NAMES = [name for name in present() if ENTRIES[name].family not in VIDEO]
NOT_FOR_OTHER_LOADERS = {
    *("lumina2", "newbie", "hunyuan_image", "ideogram4", "lens", "joy_image", "pixeldit")
}
"""The host fuses layers that its own LoRA loader cannot take apart."""


@pytest.fixture
def files(sd3_folders, monkeypatch, tmp_path):
    """One folder of this test for CLEAR files and for what nodes write."""
    import folder_paths

    for kind in ("clear", "loras"):
        entry = ([str(tmp_path)], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, entry)
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return tmp_path


@pytest.fixture
def facts(product):
    """Return a model's table and size."""
    return product("comfyui.weights.base").table_and_size


def pooling_of(table, size):
    blocks = [(kind.name, i) for kind in table.kinds for i in range(size.blocks[kind.name])]
    values = torch.rand(len(blocks), FACTOR, FACTOR, generator=torch.Generator().manual_seed(1))
    return table.pooling_tensors(dict(zip(blocks, values, strict=True)))


def whole(table, size, model):
    """Return the tensors of a file that changes every projection of a model."""
    generator = torch.Generator().manual_seed(0)
    base = table.from_host(model.model.diffusion_model.state_dict(), size)
    return {name: 0.1 * torch.randn(t.shape, generator=generator) + t for name, t in base.items()}


def changes(table, size):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer, (rows, columns) in table.shapes(size).items():
        name = f"{table.lora_prefix}{layer}"
        down, up = torch.randn(RANK, columns), torch.randn(rows, RANK, generator=generator)
        tensors[f"{name}.lora_A.weight"] = down / columns**0.5
        tensors[f"{name}.lora_B.weight"] = up / 4
    return tensors


def trained(model, table, size):
    """Return the weights of a model's projections as it runs with them, by names in the file."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    state = patched_weights(model)
    return table.from_host({k.removeprefix(HOST_PREFIX): t for k, t in state.items()}, size)


def painted(entry, model):
    return sampled(model, latent(entry), conditioning(entry, 9))


@pytest.mark.parametrize("name", NAMES)
def test_the_host_has_what_a_familys_names_promise(name, zoo_model, facts, product):
    model = zoo_model(name)
    table, size = facts(model)
    family = product("comfyui.families").require_family(model)
    network = model.model.diffusion_model
    assert table.family == family.data.key == ENTRIES[name].family
    assert {**size.blocks} == {**dict.fromkeys(size.blocks, 0), **family.block_counts(network)}
    fused = {}
    for kind in table.kinds:
        for index in range(size.blocks[kind.name]):
            for layer in kind.layers:
                module = network.get_submodule(layer.host.format(index))
                rows, columns = layer.shape(size.widths(kind))
                assert module.in_features == columns
                assert (module.bias is not None) == layer.biased
                fused.setdefault(module, []).append((kind.row(layer, size.widths(kind)), rows))
    for module, parts in fused.items():
        ends = [0, *(start + rows for start, rows in parts)]
        assert [start for start, _ in parts] == ends[:-1]
        assert ends[-1] == module.out_features or (
            len(parts) == 3 and module.out_features > ends[-1]  # the MLP's input, behind
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_named_layer_lies_in_its_block_and_gets_the_picture(name, zoo_model, facts):
    entry, model = ENTRIES[name], zoo_model(name)
    table, _ = facts(model)
    seen = {}

    def count(of, module, args):
        seen.setdefault(of, args[0].numel() // module.in_features)

    with ExitStack() as hooks:
        for kind in table.kinds:
            path = entry.blocks[entry.twice.get(kind.name, kind.name)]
            for of in {layer.host for layer in kind.layers}:
                assert of.startswith(f"{path}.{{}}.")
                module = model.model.diffusion_model.get_submodule(of.format(0))
                hook = module.register_forward_pre_hook(partial(count, of))
                hooks.callback(hook.remove)
        painted(entry, model)
    assert seen.keys() == {layer.host for kind in table.kinds for layer in kind.layers}
    assert all(tokens >= ROWS * COLUMNS for tokens in seen.values()), seen  # the text has 9


@pytest.mark.parametrize("name", NAMES)
def test_a_file_puts_its_weights_and_its_window_onto_the_model(
    name, zoo_model, facts, product, nodes, files
):
    entry, model = ENTRIES[name], zoo_model(name)
    table, size = facts(model)
    tensors = whole(table, size, model)
    product("weights.checkpoint").save(
        files / "mine.safetensors",
        tensors | pooling_of(table, size),
        radius=RADIUS,
        family=table.family,
    )
    before = painted(entry, model)
    loaded = nodes.CLEARLoader(model, "mine.safetensors")
    now = trained(loaded, table, size)
    assert all(torch.equal(now[key], tensor) for key, tensor in tensors.items())

    other = build(name)  # the same model with these weights in its layers, and a plain window
    state = other.model.diffusion_model.state_dict()
    for key, (to, rows) in table.slices(size).items():
        state[to].narrow(*rows).copy_(tensors[key])
    window = product("comfyui.core.patch").with_window
    settings = product("comfyui.core.settings").WindowSettings
    pooling = product("pooling").Pooling
    weights = table.pooling_weights(pooling_of(table, size))
    pools = {block: pooling(FACTOR, weight) for block, weight in weights.items()}
    local = window(other, settings(RADIUS, pool_factor=FACTOR, pool_weights=pools))
    wanted = painted(entry, local)
    assert torch.equal(painted(entry, loaded), wanted)
    assert (wanted - before).abs().max() > 1e-3 * before.abs().max()
    assert torch.equal(painted(entry, model), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_low_rank_file_adds_its_changes_and_other_loaders_add_the_same(
    name, zoo_model, facts, product, nodes, files
):
    import comfy.sd

    model = zoo_model(name)
    table, size = facts(model)
    tensors = changes(table, size)
    product("weights.low_rank").save(
        files / "mine.safetensors", tensors, radius=RADIUS, family=table.family
    )
    base = trained(model, table, size)
    ours = trained(nodes.CLEARLoader(model, "mine.safetensors"), table, size)
    for layer in table.shapes(size):
        down, up = (tensors[f"{table.lora_prefix}{layer}.lora_{x}.weight"] for x in "AB")
        wanted = base[f"{layer}.weight"] + up @ down
        torch.testing.assert_close(ours[f"{layer}.weight"], wanted, atol=2e-6, rtol=2e-6)
    theirs = trained(comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0)[0], table, size)
    same = {key: torch.equal(ours[key], theirs[key]) for key in ours if key.endswith("weight")}
    assert all(same.values()) == (name not in NOT_FOR_OTHER_LOADERS), same


@pytest.mark.parametrize("name", NAMES)
def test_a_lora_extracted_from_a_file_makes_the_same_weights(
    name, zoo_model, facts, product, node_classes, nodes, files
):
    model = zoo_model(name)
    table, size = facts(model)
    tensors = trained(model, table, size)
    for layer in table.shapes(size):
        down, up = (
            changes(table, size)[f"{table.lora_prefix}{layer}.lora_{x}.weight"] for x in "AB"
        )
        tensors[f"{layer}.weight"] = tensors[f"{layer}.weight"] + up @ down
    product("weights.checkpoint").save(
        files / "mine.safetensors", tensors, radius=RADIUS, family=table.family
    )
    with torch.inference_mode():
        extract = node_classes["CLEARExtractLoRA"].execute
        lora, report = extract(model, "mine.safetensors", RANK).args
    assert "lost of what distilling changed: 0.0 %" in report
    made = trained(nodes.CLEARLoader(model, lora), table, size)
    for key, tensor in tensors.items():
        # Factors and product in float32: some hundred roundings of values near 1.
        torch.testing.assert_close(made[key], tensor, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", sorted({*present()} - {*NAMES}))
def test_a_family_without_names_is_named(name, zoo_model, facts):
    with pytest.raises(ValueError, match=r"^CLEAR weights are known for .*, the model is .*\.$"):
        facts(zoo_model(name))


class ZooCLIP(WordsCLIP):
    """A text encoder that gives what an architecture takes."""

    def __init__(self, entry):
        super().__init__(width=0)
        self.entry = entry

    def encode_from_tokens_scheduled(self, words):
        return conditioning(self.entry, max(4, len(words)))


@pytest.mark.parametrize("name", NAMES)
def test_every_projection_of_a_student_learns_or_one_sentence_says_why_not(
    name, zoo_model, facts, product, node_classes, files, short_generation
):
    entry, model = ENTRIES[name], zoo_model(name)
    table, size = facts(model)
    base = trained(model, table, size)
    token_px = product("comfyui.families").require_family(model).data.token_px
    given = dict(name="mine", radius=2, pool_factor=2, rank=0, steps=1, batch=1, samples=2)
    given |= dict(width=6 * token_px, height=7 * token_px, optimiser="adamw", learning_rate=0.01)
    given |= dict(guidance=0.0, cfg=1.0, seed=0)
    why = sentence(name)
    with torch.inference_mode():
        distil = node_classes["CLEARDistill"].execute
        if why:
            with pytest.raises(ValueError, match=why):
                distil(model, ZooCLIP(entry), "one two\nthree", **given)
            return
        file = distil(model, ZooCLIP(entry), "one two\nthree", **given).args[0]
    checkpoint = product("weights.checkpoint")
    found = checkpoint.read(files / file)
    made = checkpoint.load(found)
    assert found.family == table.family
    for key, tensor in base.items():
        assert not torch.equal(made[key], tensor.bfloat16()), key
    for key in pooling_of(table, size):
        assert not torch.equal(made[key], torch.full_like(made[key], FACTOR**-2)), key


def sentence(name):
    """Return what CLEAR Distil says of a model on this host, or an empty string."""
    limit = UNTRAINABLE.get(name)
    return limit.sentence if limit and host_version() >= limit.since else ""
