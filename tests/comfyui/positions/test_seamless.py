"""CLEAR Seamless in the real host: what rolls, what stays, in which order, and what is reported."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging

import pytest
import torch

from .. import flux_runs

RADIUS = 4
SIZE = (16, 22)
inputs = functools.partial(flux_runs.inputs, height=SIZE[0], width=SIZE[1], text=7)
# What another order of the sums may change: the window is computed for other tiles.
CLOSE = dict(atol=2e-5, rtol=2e-5)


def without_text(references=0, **kwargs):
    """Hide the text from the picture: it lies at one place, from which a roll would be seen."""
    arguments = inputs(text=1, **kwargs)
    tokens = 1 + SIZE[0] * SIZE[1] // 4 + references
    mask = torch.zeros(1, tokens, tokens)
    mask[:, 1:, :1] = -torch.inf
    return {**arguments, "attention_mask": mask}


def rolled(x, shift):
    return x.roll(shift, (-2, -1))


MODELS = {
    "full attention": lambda nodes, model: model,
    "window": lambda nodes, model: nodes.CLEARAttention(model, RADIUS),
    "window that meets itself": lambda nodes, model: nodes.CLEARAttention(model, 5),
    "high resolution": lambda nodes, model: nodes.CLEARHighRes(
        nodes.CLEARAttention(model, RADIUS), 10.0, True
    ),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("direction", "shift"), [("both", (6, 10)), ("horizontal", (0, -4)), ("vertical", (2, 0))]
)
def test_a_rolled_latent_gives_the_rolled_velocity(kind, direction, shift, flux_model, nodes, run):
    before = MODELS[kind](nodes, flux_model("b"))
    model = nodes.CLEARSeamless(before, direction)
    arguments = without_text(batch=2)
    other = {**arguments, "x": rolled(arguments["x"], shift)}
    velocity = run(model, **arguments)
    torch.testing.assert_close(run(model, **other), rolled(velocity, shift), **CLOSE)
    assert not torch.allclose(
        run(before, **other), rolled(run(before, **arguments), shift), atol=1e-2
    )
    across = rolled(arguments["x"], (2, 2))
    if direction != "both":  # the other axis has edges
        still = run(model, **{**arguments, "x": across})
        assert not torch.allclose(still, rolled(velocity, (2, 2)), atol=1e-2)


def test_a_reference_rolls_along(flux_model, nodes, run):
    model = nodes.CLEARSeamless(nodes.CLEARAttention(flux_model("a"), RADIUS))
    reference = torch.randn(1, 16, *SIZE, generator=torch.Generator().manual_seed(3))
    arguments, shift = without_text(references=SIZE[0] * SIZE[1] // 4), (4, 6)
    velocity = run(model, **arguments, ref_latents=[reference])
    arguments["x"] = rolled(arguments["x"], shift)
    found = run(model, **arguments, ref_latents=[rolled(reference, shift)])
    torch.testing.assert_close(found, rolled(velocity, shift), **CLOSE)
    assert not torch.allclose(run(model, **arguments, ref_latents=[reference]), found, atol=1e-3)


@pytest.mark.parametrize("references", [[(11, 7)], [(30, 40), (6, 13)]], ids=str)
def test_references_of_any_size_run(references, flux_model, nodes, run):
    model = nodes.CLEARSeamless(nodes.CLEARAttention(flux_model("b"), RADIUS))
    latents = [torch.randn(1, 16, *size) for size in references]
    assert run(model, **inputs(), ref_latents=latents).isfinite().all()


def test_the_order_of_nodes_does_not_matter(flux_model, nodes, run, clear_folder):
    steps = {
        "loader": lambda model: nodes.CLEARLoader(
            model, "clear_b_down4.safetensors", radius=RADIUS
        ),
        "seamless": lambda model: nodes.CLEARSeamless(model, "horizontal"),
        "high resolution": lambda model: nodes.CLEARHighRes(model, 4.0, True),
    }
    base, arguments = flux_model("b"), inputs()
    found = []
    for order in itertools.permutations(steps):
        model = base
        for name in order:
            model = steps[name](model)
        found.append(run(model, **arguments))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_the_last_of_two_directions_wins(flux_model, nodes, run):
    base, arguments = nodes.CLEARAttention(flux_model("b"), RADIUS), inputs()
    twice = nodes.CLEARSeamless(nodes.CLEARSeamless(base, "both"), "vertical")
    once = nodes.CLEARSeamless(base, "vertical")
    assert torch.equal(run(twice, **arguments), run(once, **arguments))
    twice, once = (nodes.CLEARHighRes(model, 10.0, True) for model in (twice, once))
    assert torch.equal(run(twice, **arguments), run(once, **arguments))


def test_the_original_model_stays_bit_equal(flux_model, nodes, run):
    model, arguments = flux_model("b"), inputs()
    before = run(model, **arguments)
    seamless = nodes.CLEARSeamless(model)
    first = run(seamless, **arguments)
    assert torch.equal(run(model, **arguments), before)
    assert torch.equal(run(seamless.clone(), **arguments), first)
    assert torch.equal(run(model, **arguments), before)
    assert not torch.allclose(first, before, atol=1e-3)


def test_sizes_and_interrupted_calls_do_not_disturb_the_next(flux_model, nodes, run):
    model = nodes.CLEARSeamless(nodes.CLEARAttention(flux_model("b"), RADIUS))
    small, large = inputs(height=8, width=10), inputs(height=14, width=12)
    first = run(model, **small)
    run(model, **large)
    assert torch.equal(run(model, **small), first)

    def fails(*args, **kwargs):
        raise InterruptedError

    interrupted = model.clone()
    interrupted.set_model_patch_replace(fails, "dit", "single_block", 0)
    with pytest.raises(InterruptedError):
        run(interrupted, **large)
    assert torch.equal(run(model, **small), first)


@pytest.fixture
def sampled(host, caplog):
    """Sample a step and return the report's lines."""
    import comfy.samplers

    def run(model, size=SIZE, text_width=64, steps=2):
        noise = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(1))
        prompt = [[torch.zeros(1, 9, text_width), {"pooled_output": torch.zeros(1, 32)}]]
        caplog.clear()
        with torch.inference_mode(), caplog.at_level(logging.INFO):
            comfy.samplers.sample(
                model,
                noise,
                prompt,
                prompt,
                1.0,
                torch.device("cpu"),
                comfy.samplers.sampler_object("euler"),
                torch.linspace(1.0, 0.0, steps + 1),
                latent_image=torch.zeros_like(noise),
                model_options=model.model_options,
                disable_pbar=True,
                seed=4,
            )
        return [r.getMessage()[7:] for r in caplog.records if r.getMessage().startswith("CLEAR:")]

    return run


def test_the_report_tells_what_wraps_around(flux_model, nodes, sampled):
    model = nodes.CLEARSeamless(flux_model("b"), "horizontal")
    assert sampled(model) == ["seamless: positions wrap around after 11 columns"]
    lines = sampled(nodes.CLEARAttention(model, RADIUS, backend="tiled"))
    assert lines[0].startswith("tiled, radius 4, wrapped around, 9 text + 8 x 11 image tokens")
    assert lines[1:] == ["seamless: window and positions wrap around after 11 columns"]
    assert "11 columns and 8 rows" in sampled(nodes.CLEARSeamless(model))[0]


def test_a_size_that_cuts_tokens_is_warned_about_once(flux_model, nodes, sampled):
    lines = sampled(nodes.CLEARSeamless(flux_model("b")), size=(16, 21))
    assert lines[0] == (
        "the picture's width is no multiple of 16 pixels: its last tokens are cut, and a seam stays"
    )
    assert len(lines) == 2
    vertical = sampled(nodes.CLEARSeamless(flux_model("b"), "vertical"), size=(16, 21))
    assert vertical == ["seamless: positions wrap around after 8 rows"]


def test_a_node_that_replaces_the_embedder_is_warned_about(flux_model, nodes, sampled):
    model = nodes.CLEARSeamless(flux_model("b"))
    embedder = flux_model("b").get_model_object("diffusion_model.pe_embedder")
    model.add_object_patch("diffusion_model.pe_embedder", embedder)
    (line,) = sampled(model)
    assert "another node has replaced the positional embedding" in line
    assert sampled(nodes.CLEARSeamless(model)) == [
        "seamless: positions wrap around after 11 columns and 8 rows"
    ]


def test_sd3_says_that_its_positions_cannot_wrap(sd3_model, nodes, sampled, product, monkeypatch):
    from ..sd3_fixtures import TEXT_WIDTH

    shown = []
    report = product("comfyui.core.report")
    monkeypatch.setattr(report, "tell", lambda *given: shown.append(given[:2]))
    model = nodes.CLEARSeamless(sd3_model("3.5-large"))
    options = model.model_options["transformer_options"]
    options["clear_attention"] = dataclasses.replace(options["clear_attention"], node_ids=("7",))
    learned = "SD3 models have a learned table of positions, which cannot wrap around: "
    assert sampled(model, text_width=TEXT_WIDTH) == [learned + "nothing does without a window"]
    assert shown == [(learned + "nothing does without a window", "7")]
    lines = sampled(nodes.CLEARAttention(model, RADIUS), text_width=TEXT_WIDTH)
    assert lines[0] == learned + "the window does, but a seam may stay"
    assert "wrapped around" in lines[1]
