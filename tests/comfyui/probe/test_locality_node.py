"""The locality probe in the real host: what it measures, and that it changes nothing."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ..flux_runs import inputs, with_override
from ..sd3_fixtures import TEXT_WIDTH

pytestmark = pytest.mark.usefixtures("undrawn")

BLOCKS = [("double", 0), ("double", 1), ("single", 0), ("single", 1), ("single", 2)]
TEXT, ROWS, COLUMNS = 40, 12, 9


def conditioning(tokens=TEXT, **more):
    generator = torch.Generator().manual_seed(2)
    cond = torch.randn(1, tokens, 64, generator=generator)
    pooled = torch.randn(1, 32, generator=generator)
    return [[cond, {"pooled_output": pooled, "guidance": 3.5, **more}]]


def picture(height=23, width=18, batch=1):
    """Return a LATENT whose size is odd in both directions by default."""
    generator = torch.Generator().manual_seed(1)
    return {"samples": torch.randn(batch, 16, height, width, generator=generator)}


@pytest.fixture(scope="module")
def adapter(product) -> ModuleType:
    """The pack's module that runs the probe."""
    return product("comfyui.probe.locality")


@pytest.fixture
def probe(adapter):
    """Measure a MODEL on every image token."""

    def run(model, cond=None, latent=None, at_percent=0.5, queries=None):
        sample = adapter.Sample(cond or conditioning(), latent or picture(), at_percent)
        with torch.inference_mode():
            return adapter.probe(model, sample, queries)

    return run


@pytest.fixture
def node(node_classes):
    """Run the node as the host does, and return its outputs."""

    def run(model, cond=None, latent=None, **given):
        with torch.inference_mode():
            return (
                node_classes["CLEARLocality"]
                .execute(model, cond or conditioning(), latent or picture(), **given)
                .args
            )

    return run


def watching(model):
    """Return a clone with the attention of another node, and the q, k and mask that it gets."""
    calls = []

    def override(func, q, k, v, heads, mask=None, **kwargs):
        def split(x):
            return x.clone() if x.ndim == 4 else x.unflatten(-1, (heads, -1)).transpose(1, 2)

        calls.append((split(q), split(k), mask))
        return func(q, k, v, heads, mask=mask, **kwargs)

    return with_override(model, override), calls


def dense_kept(q, k, radius, references=0, mask=None):
    """Return what full attention puts on visible tokens, with the disc written out once more."""
    bias = 0.0 if mask is None else mask.double()
    probs = (q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1)
    y = torch.arange(ROWS).repeat_interleave(COLUMNS)
    x = torch.arange(COLUMNS).repeat(ROWS)
    disc = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 < radius**2
    text = probs.shape[-1] - ROWS * COLUMNS - references
    sees = torch.ones(ROWS * COLUMNS, probs.shape[-1], dtype=torch.bool)
    image = slice(text, text + ROWS * COLUMNS)
    sees[:, image] = disc
    return (probs[:, :, image] * sees).sum(-1).mean((0, 2)).float()


TOKENS = TEXT + ROWS * COLUMNS
MASK = torch.zeros(1, TOKENS, TOKENS)
MASK[:, TEXT : TEXT + 30, :20] = -torch.inf
MASK[:, TEXT + 30 :, 20:TEXT] = -2.0

CASES = {
    "odd latent": ({}, {}, 0),
    "batch of two": ({}, {"batch": 2}, 0),
    "long prompt": ({"tokens": 300}, {}, 0),
    "one reference": ({"reference_latents": [torch.ones(1, 16, 11, 7)]}, {}, 24),
    "attention mask": (
        {"attention_mask": MASK, "attention_mask_img_shape": (ROWS, COLUMNS)},
        {},
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_masses_equal_those_of_the_model_s_own_queries_and_keys(case, flux_model, probe):
    prompt, latent, references = CASES[case]
    model, calls = watching(flux_model("b"))
    found = probe(model, conditioning(**prompt), picture(**latent))
    assert list(found) == BLOCKS
    assert len(calls) == len(BLOCKS)
    for locality, (q, k, mask) in zip(found.values(), calls, strict=True):
        for radius in (1, 3, 6, 99):
            expected = dense_kept(q, k, radius, references, mask)
            torch.testing.assert_close(locality.kept_at(radius), expected, atol=1e-5, rtol=0)
        assert not torch.allclose(locality.kept_at(2), locality.kept_at(99), atol=1e-2)


@pytest.mark.parametrize("name", ["3-medium", "3.5-medium"])
def test_both_attentions_of_an_sd3_block_are_measured(name, sd3_model, probe):
    """On hosts that do not say which block is running, and with queries of another shape."""
    model, calls = watching(sd3_model(name))
    prompt = [[torch.randn(1, TEXT, TEXT_WIDTH), {"pooled_output": torch.randn(1, 32)}]]
    found = probe(model, prompt, picture(height=24))
    blocks = [("joint", 0), ("joint", 1)]
    if name == "3.5-medium":
        blocks = [("joint", 0), ("image", 0), ("joint", 1), ("image", 1), ("joint", 2)]
    assert list(found) == blocks
    for locality, (q, k, _) in zip(found.values(), calls, strict=True):
        for radius in (1, 3, 6, 99):
            expected = dense_kept(q, k, radius)
            torch.testing.assert_close(locality.kept_at(radius), expected, atol=1e-5, rtol=0)


def test_the_prediction_with_the_probe_equals_the_one_without_to_the_bit(
    flux_model, adapter, probe, monkeypatch
):
    denoise_once, results = adapter.denoise_once, []
    monkeypatch.setattr(
        adapter, "denoise_once", lambda *given: results.append(denoise_once(*given))
    )
    probe(flux_model("b"))
    with torch.inference_mode():
        without = denoise_once(flux_model("b"), adapter.Sample(conditioning(), picture()))
    assert torch.equal(results[0], without)


def test_nothing_stays_on_the_model_and_its_inputs(flux_model, node, nodes, run):
    model, latent, cond = nodes.CLEARAttention(flux_model("b"), 4), picture(), conditioning()
    options = model.model_options["transformer_options"]
    before, left = run(model, **inputs()), (dict(options), dict(model.object_patches))
    samples = latent["samples"].clone()
    node(model, cond, latent)
    assert (dict(options), dict(model.object_patches)) == left
    assert torch.equal(run(model, **inputs()), before)
    assert torch.equal(latent["samples"], samples)
    assert list(cond[0][1]) == ["pooled_output", "guidance"]


def test_the_sample_is_the_noised_latent_of_that_moment(flux_model, adapter, probe):
    """The model sees sigma x noise + (1 - sigma) x latent, and the text of the prompt."""
    seen = []

    def wrapper(executor, x, t, *args, **kwargs):
        seen.append((x, t))
        return executor(x, t, *args, **kwargs)

    from comfy.patcher_extension import WrappersMP

    model = flux_model("b").clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", wrapper)
    latent = picture()
    probe(model, latent=latent, at_percent=0.3)
    (x, t), noise = seen[0], torch.randn(1, 16, 23, 18, generator=torch.manual_seed(0))
    assert len(seen) == 1
    sigma = model.get_model_object("model_sampling").percent_to_sigma(0.3)
    assert float(t) == pytest.approx(sigma)
    clean = model.model.process_latent_in(latent["samples"])
    torch.testing.assert_close(x, sigma * noise + (1 - sigma) * clean)


@pytest.mark.parametrize("at_percent", [0.0, 1.0])
def test_both_ends_of_the_schedule_can_be_measured(at_percent, flux_model, adapter, probe):
    for locality in probe(flux_model("b"), at_percent=at_percent).values():
        assert locality.kept().isfinite().all()
    sample = adapter.Sample(conditioning(), picture(), at_percent)
    with torch.inference_mode():
        assert adapter.denoise_once(flux_model("b"), sample).isfinite().all()


def test_the_window_of_a_clear_node_is_ignored(flux_model, probe, nodes, node, caplog):
    caplog.set_level(logging.INFO)
    plain = probe(flux_model("b"))
    local = nodes.CLEARAttention(flux_model("b"), 2, pool_factor=2, dense_blocks="single 0")
    for block, locality in probe(local).items():
        assert torch.equal(locality.first_seen, plain[block].first_seen)
    assert "was ignored" in node(local)[1]
    assert "was ignored" not in node(flux_model("b"))[1]
    assert "CLEAR:" not in caplog.text  # that is what the CLEAR node's own runs report


def test_proportional_attention_is_measured_with_its_scale(flux_model, probe, nodes, pack):
    model, calls = watching(flux_model("b"))
    probe(model)
    q, k, _ = calls[0]
    factor = pack.clear_attention.proportional_scale(TOKENS, q.shape[-1]) * q.shape[-1] ** 0.5
    assert factor < 0.9
    found = probe(nodes.CLEARHighRes(flux_model("b"), 1.0, True))
    expected = dense_kept(q * factor, k, 4)
    torch.testing.assert_close(found["double", 0].kept_at(4), expected, atol=1e-5, rtol=0)


def test_fewer_queries_estimate_the_same_masses(flux_model, probe):
    every, some = probe(flux_model("b")), probe(flux_model("b"), queries=30)
    for block in BLOCKS:
        assert not torch.equal(some[block].first_seen, every[block].first_seen)
        torch.testing.assert_close(some[block].kept(), every[block].kept(), atol=0.1, rtol=0)


def test_no_limit_on_the_queries_measures_every_token(flux_model, node):
    table = node(flux_model("b"), queries=0)[1]
    assert (
        table.replace("on every image token", "on 999 image tokens at most")
        == (node(flux_model("b"), queries=999)[1])
    )


def test_calls_that_are_no_joint_self_attention_pass_unmeasured(product):
    """Such as those with a cache of keys, and sequences that cannot hold the grid."""
    recording = product("comfyui.probe.recording")
    geometry = product("comfyui.core.geometry").Geometry(3, 4)
    options = {
        recording.CALL_KEY: SimpleNamespace(
            geometry=geometry, family=product("comfyui.families.flux").FLUX
        ),
        "block_type": "double",
        "block_index": 0,
    }
    measured = []
    record = recording.recording(
        lambda *found: measured.append(found), None, None, 0, [("double", 0)]
    )
    for queries, keys in ((14, 20), (11, 11), (14, 14)):
        assert not measured
        q, k = torch.randn(1, 2, queries, 8), torch.randn(1, 2, keys, 8)
        given = dict(skip_reshape=True, transformer_options=options)
        assert record(lambda q, *args, **kwargs: q, q, k, k, 2, **given) is q
    assert [block for block, _ in measured] == [("double", 0)]


def test_areas_of_different_size_are_averaged(flux_model, probe):
    whole = conditioning()
    part = conditioning(area=(14, 12, 0, 0), strength=1.0)
    found = probe(flux_model("b"), whole + part)
    assert list(found) == BLOCKS
    for locality in found.values():
        torch.testing.assert_close(locality.kept()[:, -1], torch.ones(1))


def test_the_node_gives_a_plot_a_table_and_blocks_to_keep_dense(flux_model, node, nodes):
    model = flux_model("b")
    plot, table, dense, _ = node(model, radius=4, share=0.99)
    assert plot.ndim == 4 and plot.shape[0] == 1 and plot.shape[-1] == 3
    assert all(f"\n{kind} {index} " in table for kind, index in BLOCKS)
    assert dense == "double 0-1, single 0-2"
    nodes.CLEARAttention(model, 4, dense_blocks=dense)
    assert node(model, radius=64)[2] == ""


def test_the_radii_are_in_the_form_of_the_window_node_and_keep_the_budget(
    flux_model, node, nodes, product, run
):
    """Also with references, batches and masks; the grid is odd."""
    parse = product("families.block_text").parse_radii
    model = flux_model("b")
    for case in ("batch of two", "one reference", "attention mask"):
        prompt, latent, _ = CASES[case]
        _, table, _, radii = node(model, conditioning(**prompt), picture(**latent), budget=0.9)
        assert list(parse(radii)) == BLOCKS
        share = float(table.split("work: ")[1].split("%")[0]) / 100
        assert 0.8 < share <= 0.9
        assert "CLEAR Plan expects" in table
    local = nodes.CLEARAttention(model, 4, radii=radii)
    assert not torch.equal(run(local, **inputs()), run(model, **inputs()))


def test_a_budget_below_what_text_costs_is_named(flux_model, node):
    _, table, _, radii = node(flux_model("b"), conditioning(tokens=300), budget=0.1)
    assert "A budget of 0.1 cannot be reached" in table
    assert radii == "double 0-1: 1, single 0-2: 1"


def test_more_noise_levels_take_the_place_of_one(flux_model, node):
    table = node(flux_model("b"), noise_levels=2, at_percent=0.9)[1]
    assert "after 0.25 of the schedule" in table and "and 0.75 of the schedule" in table
    assert "0.9 of the schedule (" not in table


def test_areas_of_the_prompt_have_no_part_in_the_response(flux_model, adapter):
    cond = conditioning() + conditioning(area=(14, 12, 0, 0), strength=1.0)
    sample = adapter.Sample(cond, picture())
    with torch.inference_mode():
        found = adapter.probe_windows(flux_model("b"), [sample])
    assert list(found) == BLOCKS
    assert all(each.errors.gain is not None for each in found.values())
    with torch.inference_mode():
        areas = [conditioning(area=(14, 12, y, 0), strength=1.0)[0] for y in (0, 9)]
        found = adapter.probe_windows(flux_model("b"), [adapter.Sample(areas, picture())])
    assert all(each.errors.gain is None for each in found.values())


def test_unknown_responses_are_told(flux_model, node):
    areas = [conditioning(area=(14, 12, y, 0), strength=1.0)[0] for y in (0, 9)]
    assert (
        "How the model responds to its attentions could not be measured"
        in (node(flux_model("b"), areas)[1])
    )
    assert "could not be measured" not in node(flux_model("b"))[1]


def test_a_probe_is_two_steps_of_the_model(flux_model, node):
    from comfy.patcher_extension import WrappersMP

    calls = []

    def counting(executor, *args, **kwargs):
        calls.append(1)
        return executor(*args, **kwargs)

    model = flux_model("b").clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", counting)
    node(model)
    assert len(calls) == 2


def test_without_matplotlib_all_but_the_plot_comes_out(flux_model, node, monkeypatch, caplog):
    with_plot = node(flux_model("b"))
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    message, *text = node(flux_model("b"))
    assert text == list(with_plot[1:])
    assert "pip install matplotlib" in caplog.text
    assert message.ndim == 4 and message.shape[-1] == 3
    assert 0 <= message.min() < message.max() <= 1


def test_an_empty_latent_is_refused_unless_noise_is_asked_for(flux_model, node):
    empty = {"samples": torch.zeros(1, 16, 20, 20)}
    with pytest.raises(ValueError, match=r"latent is empty.*Connect a picture"):
        node(flux_model("b"), latent=empty)
    assert node(flux_model("b"), latent=empty, at_percent=0.0)


def test_attention_that_another_node_replaces_is_not_made_up(flux_model, node):
    from comfy.patcher_extension import WrappersMP

    def replacing(executor, x, t, c_concat, c_crossattn, control, options, **kwargs):
        own = {**options, "optimized_attention_override": lambda func, *a, **k: func(*a, **k)}
        return executor(x, t, c_concat, c_crossattn, control, own, **kwargs)

    model = flux_model("b").clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", replacing)
    with pytest.raises(ValueError, match=r"Nothing could be measured.*another node replaced"):
        node(model)


def test_progress_counts_the_blocks(flux_model, node, monkeypatch):
    import comfy.utils

    steps = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *a, **k: steps.append((value, total))
    )
    node(flux_model("b"))
    # Newer hosts leave steps out that follow each other fast.
    assert steps == sorted(set(steps)) and steps[-1] == (5, 5)
    assert {total for _, total in steps} == {5} and steps[0] == (1, 5)


def test_the_probe_can_be_interrupted(flux_model, node):
    import comfy.model_management as management

    model, calls = watching(flux_model("b"))

    def interrupt(args, extra):
        management.interrupt_current_processing()
        return extra["original_block"](args)

    model.set_model_patch_replace(interrupt, "dit", "double_block", 1)
    try:
        with pytest.raises(management.InterruptProcessingException):
            node(model)
    finally:
        management.interrupt_current_processing(False)
    assert len(calls) == 1


def test_other_architectures_are_refused(flux_model, node):
    model = flux_model("b").clone()
    model.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="supports models of the families"):
        node(model)


@given(st.frozensets(st.tuples(st.sampled_from(["double", "single", "joint"]), st.integers(0, 60))))
def test_written_blocks_are_read_back(product, blocks):
    text = product("families.block_text")
    assert text.parse_blocks(text.format_blocks(blocks)) == blocks


def test_a_model_that_gives_nan_is_refused(flux_model, node):
    model = flux_model("b")
    model.model.diffusion_model.final_layer.linear.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="prediction must be finite, got NaN or infinity"):
        node(model)


def test_the_largest_seed_serves_several_noise_levels(flux_model, node):
    assert node(flux_model("b"), seed=2**64 - 1, noise_levels=3)[3]


@pytest.mark.parametrize("direction", ["both", "horizontal"])
def test_the_work_of_a_seamless_picture_counts_what_wraps_around(
    direction, flux_model, node, nodes, product
):
    model = nodes.CLEARSeamless(flux_model("b"), direction)
    latent = {"samples": torch.randn(1, 16, 40, 32, generator=torch.Generator().manual_seed(1))}
    _, table, _, radii = node(model, conditioning(4), latent=latent, budget=0.8)
    assert "CLEAR Seamless: the work counts that windows wrap around" in table
    local = nodes.CLEARAttention(model, 1, radii=radii)
    plan = product("comfyui.plan.model").plan_model(local, (320, 256), text_tokens=4)
    assert 0.7 < plan.clear.pairs / plan.full.pairs <= 0.801
