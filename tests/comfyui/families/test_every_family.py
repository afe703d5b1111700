"""Every node on every family: it works, or it says one sentence."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch

from ...pack import NODES
from ..controlnet_fixtures import hint_for
from ..distil_fixtures import WordsCLIP
from ..golden import FOLDER
from ..upscale_fixtures import DEFAULTS
from ..vae_fixtures import picture
from .cases import CASES, SENTENCES, aura, made_up_families

RADIUS = 4
SIZE = (26, 20)  # of a latent whose tokens are 2 x 2
FLUX_FILE = "clear_local_4.safetensors"


@pytest.fixture
def made_up_model(product, monkeypatch):
    """Make models of a family that is added by its two entries."""
    library, host = product("families"), product("comfyui.families")
    data, entry = made_up_families(product)
    monkeypatch.setattr(library, "FAMILIES", (data, *library.FAMILIES))
    monkeypatch.setattr(host, "FAMILIES", (entry, *host.FAMILIES))
    return lambda name: aura()


@pytest.fixture
def clear_files(host, sd3_folders, tmp_path, monkeypatch):
    """Folders of this test for CLEAR files and for what nodes write."""
    import folder_paths

    for folder in ("clear", "loras", "output"):
        (tmp_path / folder).mkdir()
    for folder in ("clear", "loras"):
        entry = ([str(tmp_path / folder)], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, entry)
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    shutil.copy(
        FOLDER / "clear_b_down4.safetensors", tmp_path / "clear" / "clear_local_4.safetensors"
    )
    return tmp_path / "clear"


@pytest.fixture
def kit(request, node_classes, product, clear_files, stages, make_control_net, short_generation):
    """What the tries below need, for a family."""

    def make(key):
        case = CASES[key]
        return SimpleNamespace(
            key=key,
            case=case,
            model=request.getfixturevalue(case.fixture)(case.name),
            product=product,
            folder=clear_files,
            vae=request.getfixturevalue(case.vae),
            control_net=make_control_net,
            node=lambda node, /, *args, **kwargs: node_classes[node].execute(*args, **kwargs).args,
        )

    return make


def conditioning(kit, tokens=24):
    generator = torch.Generator().manual_seed(2)
    context = torch.randn(1, tokens, kit.case.width, generator=generator)
    extra = {"pooled_output": torch.randn(1, 32, generator=generator)} if kit.case.pooled else {}
    return [[context, {"pooled_output": None, **extra}]]


def size_of(case):
    return tuple(edge // 2 * case.patch for edge in SIZE)


def noise_of(case):
    shape = (1, case.channels, *size_of(case))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def sampled(kit, model, positive=None, noise=None):
    """Sample two steps, as KSampler does."""
    import comfy.sample

    noise = noise_of(kit.case) if noise is None else noise
    positive = positive or conditioning(kit)
    return comfy.sample.sample(
        *(model, noise, 2, 1.0, "euler", "simple", positive, positive, torch.zeros_like(noise)),
        disable_pbar=True,
        seed=0,
    )


def file_for(kit):
    """Write a CLEAR file for a model, or name FLUX's where its family has none."""
    base, checkpoint = kit.product("comfyui.weights.base"), kit.product("weights.checkpoint")
    if kit.product("comfyui.families").require_family(kit.model).data.names is None:
        return FLUX_FILE
    table, size = base.table_and_size(kit.model)
    tensors = {
        name: tensor + 0.01
        for name, tensor in table.from_host(
            kit.model.model.diffusion_model.state_dict(), size
        ).items()
    }
    checkpoint.save(kit.folder / "mine.safetensors", tensors, radius=RADIUS, family=table.family)
    return "mine.safetensors"


def attention(kit):
    model = kit.node("CLEARAttention", kit.model, RADIUS, 2, dense_blocks=kit.case.block)[0]
    return sampled(kit, model)


def loader(kit):
    return sampled(kit, kit.node("CLEARLoader", kit.model, file_for(kit))[0])


def high_resolution(kit):
    return sampled(kit, kit.node("CLEARHighRes", kit.model, 10.0, True)[0])


def seamless(kit):
    model = kit.node("CLEARAttention", kit.model, RADIUS)[0]
    return sampled(kit, kit.node("CLEARSeamless", model, "both")[0])


def seamless_decode(kit):
    samples = sampled(kit, kit.node("CLEARAttention", kit.model, RADIUS)[0])
    # Around one edge: what is added around two is most of the picture.
    node, latent = "CLEARSeamlessDecode", {"samples": samples[..., :4, :8]}
    return kit.node(node, latent, kit.vae, "horizontal")[0]


def control_net(kit):
    from comfy.controlnet import ControlNet

    from nodes import ControlNetApplyAdvanced

    if kit.case.net is None:  # the host has none for the family: one of its class is known too
        net = ControlNet(kit.model.model.diffusion_model, load_device=torch.device("cpu"))
        assert kit.node("CLEARControlNet", net, RADIUS)
        return torch.zeros(1)
    (local,) = kit.node("CLEARControlNet", kit.control_net(kit.case.net), RADIUS)
    hint = hint_for(kit.case.net, size_of(kit.case)).movedim(1, -1)
    given = conditioning(kit)
    if not kit.case.pooled:  # FLUX's nets want a pooled vector, and find it in the conditioning
        given[0][1]["pooled_output"] = torch.zeros(1, 32)
    positive, _ = ControlNetApplyAdvanced().apply_controlnet(given, given, local, hint, 0.8, 0, 1)
    return sampled(kit, kit.node("CLEARAttention", kit.model, RADIUS)[0], positive)


def upscale(kit):
    given = dict(model=kit.model, vae=kit.vae, image=picture(64, 48), size=128)
    given |= dict(positive=conditioning(kit), negative=conditioning(kit))
    return kit.node("CLEARUpscale", **{**DEFAULTS, **given, "trained_size": 64, "steps": 2})[0]


def low_memory(kit):
    model = kit.node("CLEARAttention", kit.model, RADIUS)[0]
    return sampled(kit, kit.node("CLEARLowMemory", model, 64)[0])


def parallel(kit):
    model = kit.node("CLEARAttention", kit.model, RADIUS)[0]
    return sampled(kit, kit.node("CLEARParallel", model, "cpu,cpu")[0])


def parallel_decode(kit):
    samples = sampled(kit, kit.node("CLEARAttention", kit.model, RADIUS)[0])
    return kit.node("CLEARParallelDecode", {"samples": samples}, kit.vae, "cpu,cpu", 64, 16)[0]


def plan(kit):
    text, figure, model = kit.node(
        "CLEARPlan", kit.model, 160, 208, radius=RADIUS, text_tokens=24, steps=2
    )
    assert "seconds" in text
    assert figure.isfinite().all()
    return sampled(kit, model)


def window_preview(kit):
    return kit.node("CLEARWindowPreview", image=picture(208, 160), radius=RADIUS)[0]


def locality(kit):
    latent = {"samples": torch.ones_like(noise_of(kit.case))}
    given = (conditioning(kit), latent, RADIUS)
    figure, table, _, radii = kit.node("CLEARLocality", kit.model, *given)
    kit.node("CLEARAttention", kit.model, RADIUS, radii=radii)
    counts = kit.product("comfyui.core.blocks").block_counts(kit.model)
    for kind, count in counts.items():
        assert all(f"{kind} {index} " in table for index in range(count))
    return figure


def compare(kit):
    local = kit.node("CLEARAttention", kit.model, RADIUS)[0]
    latent = {"samples": torch.zeros_like(noise_of(kit.case))}
    prompts = dict(positive=conditioning(kit), negative=conditioning(kit))
    given = dict(latent=latent, pictures=1, steps=2, vae=kit.vae)
    sheet, table = kit.node("CLEARCompare", kit.model, local, **prompts, **given)
    assert f"clear_model, r = {RADIUS}" in table and "another seed" in table
    return sheet


def distill(kit):
    clip = WordsCLIP(kit.case.width, pooled=kit.case.pooled)
    given = dict(name="mine", radius=2, pool_factor=2, rank=2, steps=2, batch=1, samples=2)
    given |= dict(width=64, height=64, optimiser="adamw", learning_rate=1e-3)
    given |= dict(guidance=0.0, cfg=1.0, seed=0)
    name, losses, _ = kit.node("CLEARDistill", kit.model, clip, "one two\nthree", **given)
    assert losses.isfinite().all()
    return sampled(kit, kit.node("CLEARLoader", kit.model, name)[0])


def extract(kit):
    name, report = kit.node("CLEARExtractLoRA", kit.model, file_for(kit), 2)
    assert "rank 2" in report
    return sampled(kit, kit.node("CLEARLoader", kit.model, name)[0])


TRIES = {
    "CLEARLoader": loader,
    "CLEARAttention": attention,
    "CLEARHighRes": high_resolution,
    "CLEARSeamless": seamless,
    "CLEARSeamlessDecode": seamless_decode,
    "CLEARControlNet": control_net,
    "CLEARUpscale": upscale,
    "CLEARLowMemory": low_memory,
    "CLEARParallel": parallel,
    "CLEARParallelDecode": parallel_decode,
    "CLEARPlan": plan,
    "CLEARWindowPreview": window_preview,
    "CLEARLocality": locality,
    "CLEARCompare": compare,
    "CLEARDistill": distill,
    "CLEARExtractLoRA": extract,
}

IN_PROCESSES = "CLEARCluster"
"""Its processes compute what CLEARParallel's threads do; `parallel/cluster` tests them."""


def test_the_table_has_every_node_and_every_family(product):
    keys = [family.data.key for family in product("comfyui.families").FAMILIES]
    assert [family.key for family in product("families").FAMILIES] == keys
    assert set(CASES) <= {*keys, "made_up"}
    assert list(TRIES) == [node for node in NODES if node != IN_PROCESSES]


@pytest.mark.parametrize("node", TRIES)
@pytest.mark.parametrize("key", CASES)
def test_every_node_works_on_every_family_or_says_one_sentence(key, node, kit):
    sentence = SENTENCES.get((key, node))
    with torch.inference_mode():
        if sentence is None:
            result = TRIES[node](kit(key))
            assert result.isfinite().all()
            assert result.abs().sum() > 0 or CASES[key].net is None
            return
        with pytest.raises((ValueError, RuntimeError), match=sentence) as raised:
            TRIES[node](kit(key))
    assert str(raised.value)[0].isupper() or ".safetensors is made for" in str(raised.value)
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize("key", CASES)
def test_a_window_over_the_whole_grid_equals_the_hosts_attention(key, kit):
    """Two steps of sampling: rounding goes in twice."""
    kit = kit(key)
    with torch.inference_mode():
        full = sampled(kit, kit.model)
        model = kit.node("CLEARAttention", kit.model, 64)[0]
        assert (sampled(kit, model) - full).abs().max() <= 1e-5 * full.abs().max()
        small = kit.node("CLEARAttention", kit.model, 2)[0]
        assert (sampled(kit, small) - full).abs().max() > 1e-3 * full.abs().max()


@pytest.mark.parametrize("key", CASES)
def test_the_row_of_a_changed_latent_cell_lies_where_the_family_says(key, kit):
    """In the first attention's queries, which no token has reached another through yet."""
    kit = kit(key)
    family = kit.product("comfyui.families").require_family(kit.model)
    model_call, host_call = (
        kit.product(f"comfyui.core.calls.{x}") for x in ("model_call", "host_call")
    )
    seen = []

    def record(func, *args, **kwargs):
        seen.append(host_call.read_call(*args, **kwargs).q)
        return func(*args, **kwargs)

    def first_queries(noise):
        seen.clear()
        model = kit.model.clone()
        options = model.model_options.setdefault("transformer_options", {})
        options["optimized_attention_override"] = record
        with torch.inference_mode():
            sampled(kit, model, noise=noise)
        return seen[0]

    noise = noise_of(kit.case)
    before = first_queries(noise)
    changed = noise.clone()
    patch = kit.case.patch
    changed[..., 4 * patch + patch - 1, 6 * patch + patch - 1] += 1  # in the token (4, 6)
    reacts = (first_queries(changed) != before).any(3).any(1)[0]
    network = kit.model.model.diffusion_model
    grid = model_call.geometry_of_call(family, network, noise, {})
    layout = grid.layout(before.shape[2])
    assert reacts.nonzero().flatten().tolist() == [layout.image_slice.start + 4 * layout.width + 6]


@pytest.mark.parametrize("key", CASES)
def test_names_and_dimensions_agree_on_the_kinds_of_attention(key, kit):
    kit = kit(key)
    family = kit.product("comfyui.families").require_family(kit.model)
    module = kit.model.model.diffusion_model
    counts = family.block_counts(module)
    assert list(counts) == [kind.name for kind in family.data.kinds]
    assert family.patch(module) == family.data.patch == kit.case.patch
    assert counts == {each.kind: each.count for each in family.network(module).attentions}
    if family.data.names is not None:
        assert [kind.name for kind in family.data.names.kinds] == list(counts)
        assert family.data.names.family == family.data.key == key


def test_a_file_of_another_family_with_the_same_names_is_refused(kit):
    """FLUX's and Chroma's layers have the same names and shapes, and other weights."""
    kit = kit("chroma")
    with pytest.raises(ValueError, match=r"is made for FLUX\.1, the model is Chroma\."):
        kit.node("CLEARLoader", kit.model, FLUX_FILE)
