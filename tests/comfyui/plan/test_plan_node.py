"""The plan in the real host: the models' dimensions, the memory they hold, and their runs."""

from __future__ import annotations

import inspect
import logging
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..flux_runs import inputs
from ..sd3_fixtures import TEXT_WIDTH

pytestmark = pytest.mark.usefixtures("undrawn")

TEXT = 40
LONG = 512  # as the host makes each prompt of FLUX.2, at least
SD3_NAMES = ("3-medium", "3.5-large", "3.5-medium", "one block")


@pytest.fixture(scope="module")
def adapter(pack, product):
    """The pack's modules that plan."""
    return SimpleNamespace(
        planner=product("comfyui.plan.model"),
        node=product("comfyui.plan.node"),
        cost=product("plan.cost"),
        network=product("families.network"),
        pack=pack.clear_attention,
    )


@pytest.fixture
def measuring():
    """For tests that measure the machine, which takes longer than all else here."""


@pytest.fixture(autouse=True)
def assumed(request, adapter, product, monkeypatch):
    """Let the others assume one speed for everything."""
    if "measuring" in request.fixturenames:
        return
    found = product("plan.machine").Found(1, False, 1e-12)
    monkeypatch.setattr(adapter.planner.Machine, "_measure", lambda *args: found)
    monkeypatch.setattr(adapter.planner, "KNOWN", {})


@pytest.fixture
def node(node_classes):
    """Run the node as the host does, and return text, plot and model."""

    def run(model, **given):
        given = {"width": 96, "height": 160, "radius": 3, "text_tokens": TEXT, **given}
        with torch.inference_mode():
            return node_classes["CLEARPlan"].execute(model, **given).args

    return run


def prompt(width=64, tokens=TEXT):
    generator = torch.Generator().manual_seed(2)
    cond = torch.randn(1, tokens, width, generator=generator)
    pooled = torch.randn(1, 32, generator=generator)
    return [[cond, {"pooled_output": pooled, "guidance": 3.5}]]


def latent_of(model, height, width, batch=1):
    """Return an empty latent with as many tokens as FLUX.1 has in latent pixels of this number."""
    channels = model.get_model_object("latent_format").latent_channels
    patch = model.model.diffusion_model.patch_size
    return torch.zeros(batch, channels, height // 2 * patch, width // 2 * patch)


def sample(model, height=20, width=12, steps=3, batch=1, text_width=64):
    """Sample as KSampler does, in latent pixels of FLUX.1, and return the latent."""
    import comfy.sample

    latent = latent_of(model, height, width, batch)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    positive = prompt(text_width)
    with torch.inference_mode():
        return comfy.sample.sample(
            *(model, noise, steps, 1.0, "euler", "simple", positive, positive, latent),
            disable_pbar=True,
            seed=0,
        )


def models(flux_model, flux2_model, sd3_model, chroma_model):
    yield "FLUX a", flux_model("a"), 64
    yield "FLUX b", flux_model("b"), 64
    flux2 = flux2_model()
    # Torch counts a layer on a transposed picture among the attention's products.
    flux2.model.diffusion_model.img_in.register_forward_pre_hook(
        lambda _, args: (args[0].contiguous(),)
    )
    yield "FLUX.2", flux2, 64
    yield "Chroma", chroma_model(), 64
    for name in SD3_NAMES:
        yield name, sd3_model(name), TEXT_WIDTH


def job(adapter, height, width, radius=None, text=TEXT, **more):
    window = adapter.pack.Window(radius) if radius else None
    return adapter.network.Job(adapter.pack.TokenLayout(text, height, width), window, **more)


def of_linear_layers(counter):
    """Return what torch counted, without the products of the attention and of the positions."""
    kinds = {"aten.mm", "aten.addmm", "aten.convolution"}
    totals = counter.get_flop_counts()["Global"]
    return sum(flop for kind, flop in totals.items() if str(kind) in kinds)


@pytest.fixture
def fused(host, monkeypatch):
    """The host with PyTorch's attention, which is what it takes on a GPU."""
    import comfy.ldm.flux.math
    import comfy.ldm.modules.attention
    import comfy.ldm.modules.diffusionmodules.mmdit

    attend = comfy.ldm.modules.attention.attention_pytorch
    for module in (comfy.ldm.flux.math, comfy.ldm.modules.diffusionmodules.mmdit):
        monkeypatch.setattr(module, "optimized_attention", attend)


def test_the_linear_layers_are_those_that_the_models_run(
    flux_model, flux2_model, sd3_model, chroma_model, adapter
):
    """Counted by torch at two sizes: what depends on the tokens, not what runs per picture."""

    def counted(model, width, size):
        with FlopCounterMode(display=False) as counter:
            sample(model, *size, steps=1, text_width=width)
        return of_linear_layers(counter)

    for name, model, width in models(flux_model, flux2_model, sd3_model, chroma_model):
        network = adapter.planner.network_of(model)
        more = counted(model, width, (20, 12)) - counted(model, width, (10, 12))
        expected = adapter.cost.linear_flop(network, job(adapter, 10, 6))
        expected -= adapter.cost.linear_flop(network, job(adapter, 5, 6))
        assert more == expected, name


def test_text_tokens_are_counted_as_the_models_use_them(
    flux_model, flux2_model, sd3_model, chroma_model, adapter
):
    import comfy.sample

    def counted(model, width, tokens):
        latent = latent_of(model, 8, 8)
        positive = prompt(width, tokens)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            comfy.sample.sample(
                *(model, latent, 1, 1.0, "euler", "simple", positive, positive, latent),
                disable_pbar=True,
                seed=0,
            )
        return of_linear_layers(counter)

    for name, model, width in models(flux_model, flux2_model, sd3_model, chroma_model):
        network = adapter.planner.network_of(model)
        more = counted(model, width, LONG + 40) - counted(model, width, LONG)
        assert more == 2 * 40 * network.text_weights, name


def storages(tree):
    """Return what holds the numbers of the tensors in a tree."""
    return [t.untyped_storage() for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and still there."""

    def __init__(self):
        super().__init__()
        self.bytes, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in storages((args, kwargs))}
        for storage in storages(out):
            if storage._cdata not in given:  # not a view, such as newer hosts make of the weights
                self._add(storage)
        self.peak = max(self.peak, self.bytes)
        return out

    def _add(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.bytes += size
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key, size):
        self.known.discard(key)
        self.bytes -= size


@pytest.mark.parametrize("radius", [None, 4])
def test_the_memory_is_what_the_models_hold_at_their_peak(
    radius, fused, flux_model, flux2_model, sd3_model, chroma_model, adapter, nodes
):
    import comfy.ldm.flux.layers

    size = (32, 30)  # the most that these SD3 have positions for
    # Older hosts keep what FLUX's blocks need no more until the blocks end.
    frees = "del qkv" in inspect.getsource(comfy.ldm.flux.layers.SingleStreamBlock)
    least = 0.8 if frees else 0.7
    for name, model, width in models(flux_model, flux2_model, sd3_model, chroma_model):
        text = LONG if name == "FLUX.2" else TEXT
        call = job(adapter, size[0], size[1], radius, text=text)
        used = nodes.CLEARAttention(model, radius, backend="tiled") if radius else model
        sample(used, 8, 8, steps=1, text_width=width)  # moves the weights
        with Live() as live:
            sample(used, 2 * size[0], 2 * size[1], steps=1, text_width=width)
        network = adapter.planner.network_of(model)
        expected = adapter.cost.memory(network, call, torch.float32, torch.device("cpu"))
        assert least < expected / live.peak < 1.2, (name, expected / live.peak)


def test_the_node_gives_a_plan_a_plot_and_the_model(measuring, flux_model, node):
    text, plot, model = node(flux_model("b"))
    assert "FLUX, 2 double + 3 single attentions of 1 heads x 128; cpu, float32" in text
    assert "96 x 160 pixels, batch 1: 40 text + 10 x 6 image tokens of 16 pixels" in text
    assert "CLEAR r = 3" in text and "Verdict: fits." in text
    assert plot.ndim == 4 and plot.shape[0] == 1 and plot.shape[-1] == 3
    assert model.model is not None


def test_the_text_is_shown_by_the_node_itself(flux_model, node_classes):
    with torch.inference_mode():
        out = node_classes["CLEARPlan"].execute(flux_model("b"), width=96, height=96)
    assert out.ui.as_dict()["text"] == (out.args[0],)


def test_the_model_is_the_same_to_the_bit(flux_model, node, nodes, run):
    model = nodes.CLEARAttention(flux_model("b"), 3)
    before = run(model, **inputs())
    assert torch.equal(run(node(model)[2], **inputs()), before)
    assert torch.equal(run(model, **inputs()), before)
    expected = sample(model)
    assert torch.equal(sample(node(model)[2]), expected)


def test_a_clear_node_in_front_is_what_is_planned(flux_model, node, nodes, adapter):
    model = nodes.CLEARAttention(flux_model("b"), 5, pool_factor=2, dense_blocks="single 0-1")
    plan = adapter.planner.plan_model(model, (160, 96), text_tokens=TEXT)
    assert (plan.job.window.radius, plan.job.pool_factor) == (5, 2)
    assert plan.job.dense == {("single", 0), ("single", 1)}
    assert "CLEAR r = 5, pooled by 2" in node(model, radius=0)[0]
    assert "CLEAR r = 7" in node(model, radius=7)[0]
    assert "CLEAR r = 16" in node(flux_model("b"), radius=0)[0]
    small = nodes.CLEARAttention(flux_model("b"), 5, min_tokens=61)
    assert adapter.planner.plan_model(small, (160, 96)).job.window is None
    assert adapter.planner.plan_model(small, (176, 96)).job.window is not None


def test_the_slices_of_the_node_in_front_are_planned(flux_model, nodes, adapter):
    def plan(*slice_tokens):
        model = nodes.CLEARAttention(flux_model("b"), 5, backend="tiled")
        for size in slice_tokens:
            model = nodes.CLEARLowMemory(model, size)
        return adapter.planner.plan_model(model, (1024, 1024), text_tokens=TEXT)

    without, auto, small, large = plan(), plan(0), plan(512), plan(512, 4096)
    assert (without.slice_tokens, auto.slice_tokens, small.slice_tokens) == (None, 0, 512)
    # 4096 tokens are few enough to be computed whole, by auto and by a slice that holds them all.
    assert without.step_memory == auto.step_memory == without.clear.memory
    assert small.step_memory < large.step_memory < without.step_memory


def backends(plan):
    """Return which backends a plan counts on."""
    return [rate.backend for rate in plan.rates.windows.values()]


def test_the_backend_of_the_node_in_front_is_planned(
    flux_model, nodes, adapter, product, monkeypatch
):
    plans = {
        name: adapter.planner.plan_model(
            nodes.CLEARAttention(flux_model("b"), 5, backend=name), (256, 256), text_tokens=TEXT
        )
        for name in ("tiled", "masked", "reference")
    }
    assert all(backends(plan) == [name] for name, plan in plans.items())
    assert plans["reference"].clear.memory > plans["tiled"].clear.memory
    # Of a backend that declines, a run takes what auto takes, and so does the plan.
    flex = product("backends").BACKENDS["flex"]
    monkeypatch.setattr(flex, "why_not", lambda q, call: "not here")
    model = nodes.CLEARAttention(flux_model("b"), 5, backend="flex")
    plan = adapter.planner.plan_model(model, (1024, 1024), text_tokens=TEXT)
    assert backends(plan) == ["tiled"]


def test_a_schedule_mixes_the_steps_and_has_the_larger_peak(flux_model, nodes, adapter, node):
    def plan(**given):
        model = nodes.CLEARAttention(flux_model("b"), 5, backend="tiled", **given)
        return adapter.planner.plan_model(model, (512, 512), text_tokens=TEXT)

    always, mixed = plan(), plan(start_percent=0.2, end_percent=0.9)
    assert mixed.job.local_share == pytest.approx(0.7)
    seconds = 0.7 * mixed.local.seconds + 0.3 * mixed.full.seconds
    assert mixed.clear.seconds == pytest.approx(seconds)
    assert mixed.clear.memory == max(mixed.full.memory, always.clear.memory)
    assert mixed.local.memory == always.clear.memory
    sentence = "The window is on in 70% of the schedule, attention is full in the rest"
    assert sentence in mixed.table() and "of the schedule" not in always.table()


def test_a_run_with_a_schedule_is_held_against_the_step_that_it_made(
    flux_model, node, nodes, caplog
):
    caplog.set_level(logging.INFO)
    early = nodes.CLEARAttention(flux_model("b"), 3, end_percent=0.01)
    sample(node(early, radius=0)[2])  # of three steps only the first has the window
    assert "Plan and run, full attention:" in caplog.text
    assert "the best of 2 calls" in caplog.text


def test_odd_sizes_have_the_grid_that_the_model_makes(flux_model, adapter):
    layout = adapter.planner.plan_model(flux_model("b"), (24 * 8 + 8, 17 * 8)).job.layout
    assert (layout.height, layout.width) == (13, 9)


def test_the_machine_is_measured_once(measuring, flux_model, node, adapter, monkeypatch):
    node(flux_model("b"))
    monkeypatch.setattr(adapter.planner.Machine, "_measure", None)
    assert "Verdict" in node(flux_model("b"))[0]


def test_measuring_the_machine_can_be_interrupted(measuring, flux_model, node, adapter):
    import comfy.model_management as management

    adapter.planner.KNOWN.clear()
    management.interrupt_current_processing()
    try:
        with pytest.raises(management.InterruptProcessingException):
            node(flux_model("b"))
    finally:
        management.interrupt_current_processing(False)


def test_a_run_is_held_against_the_plan(measuring, flux_model, node, nodes, caplog):
    caplog.set_level(logging.INFO)
    local = nodes.CLEARAttention(flux_model("b"), 3)
    sample(node(local, radius=0)[2])
    assert "Plan and run, CLEAR r = 3:" in caplog.text
    assert "the best of 2 calls of 1 picture." in caplog.text
    caplog.clear()
    sample(node(flux_model("b"))[2], batch=2)
    assert "Plan and run, full attention:" in caplog.text
    assert "calls of 2 pictures." in caplog.text
    caplog.clear()
    sample(node(local, radius=0)[2], height=22)
    assert "planned was a grid of 10 x 6 tokens, the run had 11 x 6 with radius 3" in caplog.text


def test_a_clear_node_behind_the_plan_counts_for_the_run(flux_model, node, nodes, caplog):
    caplog.set_level(logging.INFO)
    sample(nodes.CLEARAttention(node(flux_model("b"), radius=4)[2], 4))
    assert "Plan and run, CLEAR r = 4:" in caplog.text
    assert "10 x 6 image tokens" in caplog.text  # what the CLEAR node itself reports


def test_of_two_plans_the_later_one_counts(flux_model, node, caplog):
    caplog.set_level(logging.INFO)
    sample(node(node(flux_model("b"), width=500)[2])[2])
    assert caplog.text.count("Plan and run") == 1
    assert "Plan and run, full attention" in caplog.text


def test_a_run_that_fails_fails_as_without_a_plan(flux_model, node):
    model = node(flux_model("b"))[2]
    with pytest.raises(RuntimeError, match="shape"):
        sample(model, text_width=63)


def test_a_model_that_runs_in_slices_is_planned_so(flux_model, node, nodes):
    assert "runs in slices already" in node(nodes.CLEARLowMemory(flux_model("b")))[0]
    assert "runs in slices already" not in node(flux_model("b"))[0]


def test_the_vae_s_own_estimate_counts(flux_model, adapter):
    asked = []

    def memory_used_decode(shape, dtype):
        asked.append((tuple(shape), dtype))
        return 12345

    vae = SimpleNamespace(memory_used_decode=memory_used_decode, vae_dtype=torch.bfloat16)
    plan = adapter.planner.plan_model(flux_model("b"), (160, 96), batch=3, vae=vae)
    assert plan.budget.decoding == 12345
    assert asked == [((1, 16, 20, 12), torch.bfloat16)]
    without = adapter.planner.plan_model(flux_model("b"), (160, 96))
    assert without.budget.decoding == 2178 * 160 * 96 * 4


def test_pictures_too_large_for_this_machine_get_advice(flux_model, node, adapter, monkeypatch):
    monkeypatch.setattr(adapter.planner, "_available", lambda model: 10**8)
    text = node(flux_model("b"), width=4096, height=4096)[0]
    assert "Verdict: too large." in text
    assert "VAE Decode (Tiled)" in text


def test_without_matplotlib_the_numbers_come_out(flux_model, node, monkeypatch, caplog):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    text, message, _ = node(flux_model("b"))
    assert "8192 x 8192" in text
    assert "pip install matplotlib" in caplog.text
    assert message.ndim == 4 and 0 <= message.min() < message.max() <= 1


def test_other_architectures_are_refused(flux_model, node):
    model = flux_model("b").clone()
    model.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="supports models of the families"):
        node(model)
