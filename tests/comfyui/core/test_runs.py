"""Whole sampling runs in the real host: CFG, reports, torch.compile, nothing left behind."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from ..flux_runs import RADIUS, conditioning, inputs
from ..sampling_fixtures import SIZE, check_compilations


def test_prompts_of_different_length_run_and_are_reported(flux_model, nodes, sample, lines):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled")
    sample(model)
    grid = (SIZE[0] // 2) * (SIZE[1] // 2)
    blocks = 5
    found = lines()
    assert len(found) == 2
    for text, line in zip((40, 56), sorted(found), strict=True):
        assert line.startswith(f"tiled, radius 4, {text} text + 13 x 10 image tokens")
        assert f"of {(text + grid) ** 2:,})" in line
        assert f"{2 * blocks} attention calls" in line


def test_the_first_picture_of_a_batch_equals_the_picture_alone(flux_model, nodes, sample):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    alone, batch = sample(model), sample(model, batch=2)
    torch.testing.assert_close(batch[:1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(batch[1:], alone, atol=1e-2)


def test_dense_calls_say_why(flux_model, nodes, sample, lines):
    model = nodes.CLEARAttention(
        flux_model("b"), RADIUS, start_percent=0.5, dense_blocks="double 0"
    )
    sample(model, cfg=1.0)
    report = "\n".join(lines())
    assert "dense" in report
    assert "outside 0.5 to 1 of the schedule" in report
    assert "block double 0 is kept dense" in report
    assert "100.0 % of the pairs" in report


def test_a_backend_that_refuses_is_named_in_the_report(flux_model, nodes, sample, lines):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled")
    tokens = 40 + 13 * 10
    positive = conditioning(40, 2)
    mask = positive[0][1]["attention_mask"] = torch.zeros(1, tokens, tokens)
    mask[:, 40, 41] = -1.0  # one image token sees another less than the others do
    positive[0][1]["attention_mask_img_shape"] = (13, 10)
    sample(model, cfg=1.0, positive=positive)
    assert "not tiled: it takes no attention mask" in "\n".join(lines())


def test_a_mask_that_hides_nothing_costs_nothing(flux_model, nodes, sample, lines):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS, backend="tiled")
    positive = conditioning(40, 2)
    positive[0][1]["attention_mask"] = torch.zeros(1, 170, 170)
    positive[0][1]["attention_mask_img_shape"] = (13, 10)
    sample(model, cfg=1.0, positive=positive)
    assert "mask" not in "\n".join(lines())


def test_a_model_without_our_node_reports_nothing(flux_model, sample, lines):
    sample(flux_model("b"))
    assert lines() == []


def test_high_resolution_alone_reports_nothing(flux_model, nodes, sample, lines):
    sample(nodes.CLEARHighRes(flux_model("b")))
    assert lines() == []


def test_sampling_leaves_the_model_as_it_was(flux_model, nodes, sample):
    model = flux_model("b")
    before = sample(model)
    patched = nodes.CLEARAttention(model, RADIUS)
    first, again = sample(patched), sample(patched)
    assert torch.equal(first, again)
    assert torch.equal(before, sample(model))
    assert not torch.equal(before, first)


def test_the_report_reaches_its_node_and_the_prompt(
    flux_model, nodes, node_classes, sample, monkeypatch
):
    import comfy_execution.progress as progress
    from comfy_execution.graph import DynamicPrompt

    sent = []
    server = SimpleNamespace(send_progress_text=lambda text, node: sent.append((node, text)))
    fake = SimpleNamespace(PromptServer=SimpleNamespace(instance=server))
    monkeypatch.setitem(sys.modules, "server", fake)
    prompt = {"7": {"class_type": "CLEARAttention", "inputs": {}}}
    state = progress.ProgressRegistry(prompt_id="p", dynprompt=DynamicPrompt(prompt))
    monkeypatch.setattr(progress, "global_progress_registry", state)
    node = node_classes["CLEARAttention"]
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="7"))
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    sample(model)
    assert [node_id for node_id, _ in sent] == ["7"]
    first, own = sent[0][1].split("  \n")[:2]
    assert first.startswith("CLEAR on: ") and "x less attention work, " in first
    assert own.startswith("masked, radius 4, ")
    saved = prompt["7"]["_meta"]["clear_attention"].splitlines()
    assert saved[0] == first and f"{own}, " in saved[1] + ", "
    assert "attention calls" in saved[1] and "attention calls" not in sent[0][1]


def test_an_interrupted_run_still_reports(flux_model, nodes, sample, lines):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS).clone()
    calls = []

    def stop(args):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(stop)
    with pytest.raises(KeyboardInterrupt):
        sample(model, steps=4)
    assert lines()


def test_torch_compile_is_not_started_anew_at_each_step(flux_model, nodes, sample):
    """Nor by a picture that wraps around, whose positions are made for its size."""
    seamless = nodes.CLEARSeamless(nodes.CLEARAttention(flux_model("b"), RADIUS))
    check_compilations(seamless, sample, again=True)


@pytest.mark.parametrize(
    ("node", "inputs_of_node"),
    [("CLEARAttention", (RADIUS,)), ("CLEARHighRes", (10.0, True)), ("CLEARLowMemory", (64,))],
)
def test_a_model_compiled_as_one_graph_is_named_in_a_sentence(
    node, inputs_of_node, flux_model, nodes, sample, fused_flux
):
    model = in_one_graph(getattr(nodes, node)(flux_model("a"), *inputs_of_node))
    with pytest.raises(RuntimeError, match=r"one graph\. Switch fullgraph off in the node"):
        sample(model, steps=1, cfg=1.0)


def test_a_model_of_the_host_alone_compiles_as_one_graph(flux_model, sample, fused_flux):
    """Or the sentence would be said of models that do not compile anyway."""
    sample(in_one_graph(flux_model("a")), steps=1, cfg=1.0)


def in_one_graph(model):
    """Return a clone that torch compiles without a break."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = model.clone()
    torch._dynamo.reset()
    set_torch_compile_wrapper(model=model, backend="eager", fullgraph=True)
    return model


@pytest.fixture
def fused_flux(host, monkeypatch):
    """FLUX with an attention that compiles: the host's other one asks for the free memory."""
    import comfy.ldm.flux.math
    from comfy.ldm.modules.attention import attention_pytorch

    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)


def test_a_node_after_torch_compile_finds_the_model(flux_model, nodes, run):
    model = flux_model("a").clone()
    model.add_object_patch(
        "diffusion_model", torch.compile(model.model.diffusion_model, backend="eager")
    )
    expected = run(nodes.CLEARAttention(flux_model("a"), RADIUS), **inputs())
    local = nodes.CLEARAttention(model, RADIUS)
    with torch.compiler.set_stance("force_eager"):  # it is found, or not, without compiling
        out = run(local, **inputs())
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
