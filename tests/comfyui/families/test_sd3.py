"""CLEAR on SD3 and SD3.5 in the real host, on models that its own loader reads from files."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from ..sampling_fixtures import check_compilations
from ..sd3_fixtures import SD3_MODELS, TEXT_WIDTH

OVERRIDE = "optimized_attention_override"
RADIUS = 4
MODELS = [name for name in SD3_MODELS if name != "one block"]


def inputs(height=23, width=18, text=40, batch=1, seed=0):
    """Return the arguments of `run`; the latent is odd in height by default."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "x": random(batch, 16, height, width),
        "timestep": torch.linspace(0.9, 0.5, batch),
        "context": random(batch, text, TEXT_WIDTH),
        "y": random(batch, 32),
    }


def tokens_of(arguments):
    """Return the height and width of the grid in tokens, and the number of text tokens."""
    height, width = (-(-size // 2) for size in arguments["x"].shape[-2:])
    return height, width, arguments["context"].shape[1]


def disc(height, width, radius=RADIUS):
    """Return which token sees which, ``[N, N]``, written down a second time on purpose."""
    ys, xs = torch.arange(height * width) // width, torch.arange(height * width) % width
    return (ys[:, None] - ys) ** 2 + (xs[:, None] - xs) ** 2 < radius**2


def pooled(image, weight, height, width):
    """Pool ``[B, H, N, D]`` by weights ``[f, f]`` whose cells fill the grid."""
    factor = len(weight)
    grid = image.unflatten(2, (height // factor, factor, width // factor, factor))
    return torch.einsum("bhyaxcd,ac->bhyxd", grid, weight).flatten(2, 3)


def by_hand(model, arguments, attentions=None, scale=None):
    """Return a clone of a model whose attention is written with torch alone.

    Args:
        model: the MODEL.
        arguments: of the model call, for the grid.
        attentions: for each attention of the model in the order of its calls: "local", "dense" or
            the pooling weights ``[f, f]`` of a local one. None makes all local.
        scale: of the softmax for a number of tokens.
    """
    height, width, _ = tokens_of(arguments)
    sees = disc(height, width)
    calls = iter(attentions or itertools.repeat("local"))

    def override(func, q, k, v, heads, mask=None, **kwargs):
        q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
        text = q.shape[2] - height * width
        kind = next(calls)
        allowed = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool)
        if not isinstance(kind, str):
            more = height * width // len(kind) ** 2
            k = torch.cat((k, pooled(k[:, :, text:], kind, height, width)), 2)
            v = torch.cat((v, pooled(v[:, :, text:], kind, height, width)), 2)
            extra = torch.ones(q.shape[2], more, dtype=torch.bool)
            extra[:text] = False
            allowed = torch.cat((allowed, extra), 1)
        if not (isinstance(kind, str) and kind == "dense"):
            allowed[text:, text : text + height * width] = sees
        factor = scale and scale(q.shape[2], q.shape[3])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=factor)
        return out.transpose(1, 2).flatten(2)

    model = model.clone()
    model.model_options["transformer_options"][OVERRIDE] = override
    return model


def assert_close(actual, expected):
    """Compare two velocities in float32: attention's rounding through up to three blocks."""
    assert actual.isfinite().all()
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", SD3_MODELS)
def test_the_hosts_loader_reads_the_narrow_file(name, sd3_model):
    model = sd3_model(name).model.diffusion_model
    sizes = SD3_MODELS[name]
    assert (model.hidden_size, len(model.joint_blocks)) == (64 * sizes["depth"], sizes["depth"])
    twice = [i for i, block in enumerate(model.joint_blocks) if block.x_block.x_block_self_attn]
    assert twice == sizes.get("x_block_self_attn_layers", [])


CASES = {
    "odd latent": inputs(),
    "odd both ways": inputs(height=21, width=15),
    "one row": inputs(height=2, width=31),
    "one word": inputs(text=1),
    "long prompt": inputs(text=333),
    "batch of two": inputs(batch=2),
    "batch of three, wide": inputs(height=9, width=40, batch=3),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", CASES)
def test_window_equals_a_mask_written_by_hand(case, name, sd3_model, nodes, run):
    model, arguments = sd3_model(name), CASES[case]
    local = run(nodes.CLEARAttention(model, RADIUS), **arguments)
    assert_close(local, run(by_hand(model, arguments), **arguments))
    assert not torch.allclose(local, run(model, **arguments), atol=1e-3)


@pytest.mark.parametrize("backend", ["tiled", "masked", "flex", "reference"])
def test_every_backend_takes_the_hosts_tensors(backend, sd3_model, nodes, run):
    model, arguments = sd3_model("3.5-medium"), inputs(batch=2)
    local = nodes.CLEARAttention(model, RADIUS, backend=backend)
    assert_close(run(local, **arguments), run(by_hand(model, arguments), **arguments))


@pytest.mark.parametrize("name", MODELS)
def test_a_window_over_the_whole_grid_equals_full_attention(name, sd3_model, nodes, run):
    model, arguments = sd3_model(name), inputs(batch=2)
    assert_close(run(nodes.CLEARAttention(model, 64), **arguments), run(model, **arguments))


@pytest.mark.parametrize("backend", ["auto", "tiled", "masked"])
def test_tokens_outside_the_window_have_no_effect(backend, sd3_model, nodes, run):
    """In one block, where nothing reaches a token through the text; it attends twice."""
    model = nodes.CLEARAttention(sd3_model("one block"), RADIUS, backend=backend)
    arguments = inputs(height=24, width=20)
    before = run(model, **arguments)
    changed = {**arguments, "x": arguments["x"].clone()}
    changed["x"][..., 10:12, 8:10] += 5.0  # the token (5, 4)
    same = (run(model, **changed) == before).all(dim=1)[0]
    untouched = same.unflatten(0, (12, 2)).unflatten(2, (10, 2)).all(3).all(1)
    sees = disc(12, 10)[5 * 10 + 4].view(12, 10)
    assert torch.equal(untouched, ~sees)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_half_precision_is_as_exact_as_the_hosts_own(dtype, name, sd3_model, nodes, run):
    """The host's error against float32 arithmetic on the same weights is the yardstick."""
    arguments, model = inputs(), sd3_model(name, dtype)
    exact = run(by_hand(model, arguments), **arguments).double()
    half = model.clone()
    half.set_model_compute_dtype(dtype)
    theirs = run(by_hand(half, arguments), **arguments).double() - exact
    ours = run(nodes.CLEARAttention(half, RADIUS), **arguments).double() - exact
    assert 0 < ours.norm() <= 2 * theirs.norm()


@pytest.mark.parametrize("node", ["CLEARAttention", "CLEARLoader", "CLEARHighRes"])
def test_the_original_model_stays_bit_equal(node, sd3_model, sd3_clear, nodes, run):
    model, arguments = sd3_model("3.5-medium"), inputs()
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    before = run(model, **arguments)
    given = {
        "CLEARAttention": (RADIUS, 2),
        "CLEARLoader": (sd3_clear("3.5-medium").name,),
        "CLEARHighRes": (1.0, True),
    }
    patched = getattr(nodes, node)(model, *given[node])
    between = run(model, **arguments)
    changed = run(patched, **arguments)
    after = run(model, **arguments)
    assert torch.equal(before, between)
    assert torch.equal(before, after)
    assert not torch.equal(before, changed)
    assert all(torch.equal(weights[k], v) for k, v in model.model.state_dict().items())


@pytest.mark.parametrize(
    ("blocks", "attentions"),
    [
        ("joint 0-2, image 0-1", ["dense"] * 5),
        ("joint 0-2", ["dense", "local", "dense", "local", "dense"]),
        ("image 1, joint 2", ["local", "local", "local", "dense", "dense"]),
    ],
)
def test_chosen_blocks_stay_dense(blocks, attentions, sd3_model, nodes, run):
    model, arguments = sd3_model("3.5-medium"), inputs()
    local = nodes.CLEARAttention(model, RADIUS, dense_blocks=blocks)
    expected = run(by_hand(model, arguments, attentions), **arguments)
    assert_close(run(local, **arguments), expected)


def test_all_blocks_dense_is_the_model_itself(sd3_model, nodes, run):
    model, arguments = sd3_model("3.5-medium"), inputs()
    dense = nodes.CLEARAttention(model, RADIUS, dense_blocks="joint 0-2, image 0-1")
    assert torch.equal(run(dense, **arguments), run(model, **arguments))


@pytest.mark.parametrize(
    ("name", "blocks", "complaint"),
    [
        ("3.5-large", "double 0", "which has joint 0-1, got double 0"),
        ("3.5-large", "joint 1-2", "which has joint 0-1, got joint 2"),
        ("3.5-large", "image 0", "which has joint 0-1, got image 0"),
        ("3.5-medium", "image 2", "which has joint 0-2, image 0-1, got image 2"),
    ],
)
def test_blocks_that_the_model_lacks_are_named(name, blocks, complaint, sd3_model, nodes):
    with pytest.raises(ValueError, match=complaint):
        nodes.CLEARAttention(sd3_model(name), RADIUS, dense_blocks=blocks)


@pytest.mark.parametrize("image", [True, False])
def test_pooling_weights_reach_their_own_attention(image, sd3_model, sd3_clear, nodes, run):
    model, arguments = sd3_model("3.5-medium"), inputs(height=24, width=16)
    file = sd3_clear("3.5-medium", pool_factor=4, image=image)
    pooled = nodes.CLEARLoader(model, file.name)
    settings = pooled.model_options["transformer_options"]["clear_attention"]
    assert len(settings.local.pool_weights) == (5 if image else 3)
    mean = torch.full((1, 1, 1, 4, 1, 4, 1), 1 / 16)
    weights = [
        file.tensors.get(f"transformer_blocks.{block}.processor.spatial_weight", mean)
        for block in ("0.attn", "0.attn2", "1.attn", "1.attn2", "2.attn")
    ]
    attentions = [weight[0, 0, 0, :, 0, :, 0].float() for weight in weights]
    dense = nodes.CLEARAttention(pooled, 64)  # the file's weights, attention by hand
    del dense.model_options["transformer_options"]["clear_attention"]
    expected = run(by_hand(dense, arguments, attentions), **arguments)
    assert_close(run(pooled, **arguments), expected)
    wrong = run(by_hand(dense, arguments, attentions[::-1]), **arguments)
    assert not torch.allclose(wrong, expected, atol=1e-3)


def test_another_block_patch_stays_in_place(sd3_model, nodes, run):
    """As skip-layer guidance has one, which leaves whole blocks out."""
    arguments = inputs()
    model = sd3_model("3.5-medium").clone()
    model.set_model_patch_replace(lambda args, extra: args, "dit", "double_block", 0)
    local = nodes.CLEARAttention(model, RADIUS, dense_blocks="joint 1, image 0")
    expected = run(by_hand(model, arguments, ["dense", "local", "local"]), **arguments)
    assert_close(run(local, **arguments), expected)


@pytest.mark.parametrize("order", ["before", "after"])
def test_another_override_gets_what_is_declined(order, sd3_model, nodes, run):
    seen = []

    def other(func, *args, **kwargs):
        seen.append(args[0].shape)
        return func(*args, **kwargs)

    def with_other(model):
        model = model.clone()
        model.model_options["transformer_options"][OVERRIDE] = other
        return model

    def dense_joints(model):
        return nodes.CLEARAttention(model, RADIUS, dense_blocks="joint 0-2")

    model = sd3_model("3.5-medium")
    chained = (
        dense_joints(with_other(model)) if order == "before" else with_other(dense_joints(model))
    )
    assert torch.equal(run(chained, **inputs()), run(dense_joints(model), **inputs()))
    assert len(seen) == 3


@pytest.mark.parametrize("radius", [RADIUS, None])
def test_the_proportional_scale_counts_the_tokens_of_each_attention(radius, sd3_model, nodes, run):
    model, arguments = sd3_model("3.5-medium"), inputs()
    high = nodes.CLEARHighRes(model, 1.0, True)
    if radius is not None:
        high = nodes.CLEARAttention(high, radius)

    def scale(tokens, depth):
        return float((torch.tensor(tokens).log() / torch.tensor(4608).log() / depth).sqrt())

    attentions = ["dense" if radius is None else "local"] * 5
    expected = run(by_hand(model, arguments, attentions, scale), **arguments)
    assert_close(run(high, **arguments), expected)
    assert not torch.allclose(run(model, **arguments), expected, atol=1e-3)


def test_ntk_without_rotary_positions_is_refused_with_the_reason(sd3_model, nodes):
    with pytest.raises(ValueError, match=r"SD3 .* no rotary positions.* got 10\. Set ntk_factor"):
        nodes.CLEARHighRes(sd3_model("3.5-large"), 10.0, True)


def test_files_and_models_of_two_families_are_kept_apart(
    sd3_model, sd3_clear, flux_model, nodes, sd3_folders
):
    from ..golden import FOLDER

    flux_file = sd3_folders / "clear" / "clear_local_4.safetensors"
    flux_file.write_bytes((FOLDER / "clear_a_local.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"made for FLUX\.1, the model is SD3\. Choose"):
        nodes.CLEARLoader(sd3_model("3.5-large"), flux_file.name)
    with pytest.raises(ValueError, match=r"made for SD3, the model is FLUX\. Choose"):
        nodes.CLEARLoader(flux_model("a"), sd3_clear("3.5-large").name)


def test_a_clone_of_a_patched_model_is_patched_alike(sd3_model, sd3_clear, nodes, run):
    model = nodes.CLEARLoader(sd3_model("3.5-medium"), sd3_clear("3.5-medium", 2).name)
    with torch.inference_mode():
        clone = model.clone().clone()
    assert torch.equal(run(clone, **inputs()), run(model, **inputs()))


def test_nothing_of_a_call_stays_in_the_options(sd3_model, nodes, run):
    model = nodes.CLEARAttention(sd3_model("3.5-medium"), RADIUS, dense_blocks="joint 0")
    before = set(model.model_options["transformer_options"])
    run(model, **inputs())
    assert set(model.model_options["transformer_options"]) == before


def conditioning(tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randn(1, tokens, TEXT_WIDTH, generator=generator)
    return [[prompt, {"pooled_output": torch.randn(1, 32, generator=generator)}]]


@pytest.fixture
def sample(host):
    """Sample a few steps with CFG; the two prompts differ, by default in length too."""
    import comfy.samplers

    def run(model, steps=2, cfg=2.0, batch=1, words=(40, 56)):
        noise = torch.randn(batch, 16, 25, 20, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            return comfy.samplers.sample(
                model,
                noise,
                conditioning(words[0], 2),
                conditioning(words[1], 3),
                cfg,
                torch.device("cpu"),
                comfy.samplers.sampler_object("euler"),
                torch.linspace(1.0, 0.0, steps + 1),
                latent_image=torch.zeros_like(noise),
                model_options=model.model_options,
                disable_pbar=True,
                seed=4,
            )

    return run


def test_each_attention_of_two_prompts_is_reported(sd3_model, nodes, sample, lines):
    model = nodes.CLEARAttention(sd3_model("3.5-medium"), RADIUS, backend="tiled")
    sample(model)
    found = dict.fromkeys((40, 56, 0), "")
    for line in lines():
        found[int(line.split(", ")[2].split()[0])] = line
    assert "6 attention calls" in found[40] and "6 attention calls" in found[56]
    assert "0 text + 13 x 10 image tokens" in found[0] and "8 attention calls" in found[0]


def test_the_report_names_the_blocks_that_stay_dense(sd3_model, nodes, sample, lines):
    model = nodes.CLEARAttention(sd3_model("3.5-medium"), RADIUS, dense_blocks="joint 2, image 1")
    sample(model, cfg=1.0)
    report = "\n".join(lines())
    assert "block joint 2 is kept dense" in report and "block image 1 is kept dense" in report


@pytest.mark.parametrize("words", [(40, 40), (40, 56)])
def test_the_first_picture_of_a_batch_equals_the_picture_alone(words, sd3_model, nodes, sample):
    model = nodes.CLEARAttention(sd3_model("3.5-medium"), RADIUS, dense_blocks="joint 0")
    alone, batch = sample(model, words=words), sample(model, batch=2, words=words)
    torch.testing.assert_close(batch[:1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(batch[1:], alone, atol=1e-2)


def test_sampling_leaves_the_model_as_it_was(sd3_model, sd3_clear, nodes, sample):
    model = sd3_model("3.5-medium")
    before = sample(model)
    patched = nodes.CLEARLoader(model, sd3_clear("3.5-medium", 2).name)
    first, again = sample(patched), sample(patched)
    assert torch.equal(first, again)
    assert torch.equal(before, sample(model))
    assert not torch.equal(before, first)


def test_torch_compile_is_not_started_anew_at_each_step(sd3_model, nodes, sample):
    check_compilations(
        nodes.CLEARAttention(sd3_model("3.5-medium"), RADIUS, dense_blocks="joint 0"), sample
    )
