"""The first line of a report and what a node shows of it: the benefit, its own line, the faults."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import pytest
import torch

from ..flux_runs import RADIUS


@pytest.fixture
def core(product):
    names = ("benefit", "report", "patch")
    return SimpleNamespace(**{name: product(f"comfyui.core.{name}") for name in names})


@pytest.fixture
def path(core, product):
    """One way of computing attention that saves four fifths of the work."""
    layout = product("layout").TokenLayout(32, 16, 16)
    path = core.report.ComputedPath("tiled", layout, RADIUS, computed=100, possible=500)
    return lambda **changes: dataclasses.replace(path, **changes)


@pytest.fixture
def shown(core, monkeypatch):
    """What nodes show, by their ids, as lines."""
    texts = {}
    tell = SimpleNamespace(send_progress_text=lambda text, node: texts.update({node: text}))
    fake = SimpleNamespace(PromptServer=SimpleNamespace(instance=tell))
    monkeypatch.setitem(sys.modules, "server", fake)
    monkeypatch.setattr(core.report.SAVED_REPORTS, "add", lambda text, node: None)
    return lambda node: texts[node].split(core.report.LINE_BREAK)


def test_the_benefit_is_work_and_time_against_full_attention(core, path):
    benefit = core.benefit.Benefit.of({path(): 57}, seconds=31.0, in_full=96.0)
    expected = "CLEAR on: 3.1x faster, 5.0x less attention work, 31 s instead of about 96 s"
    assert benefit.headline() == expected


def test_without_a_base_for_an_estimate_there_is_none(core, path):
    benefit = core.benefit.Benefit.of({path(): 57}, seconds=31.0)
    assert benefit.headline() == "CLEAR on: 5.0x less attention work, 31 s"
    assert core.benefit.Benefit.of({path(): 57}).headline().endswith("less attention work")


def test_no_time_is_promised_where_full_attention_would_be_as_fast(core, path):
    benefit = core.benefit.Benefit.of({path(): 57}, seconds=31.0, in_full=30.0)
    assert "instead" not in benefit.headline() and "faster" not in benefit.headline()


def test_dense_calls_count_as_full_attention(core, path):
    calls = {path(): 50, path(radius=None, computed=500, why="kept dense"): 50}
    assert "1.7x less" in core.benefit.Benefit.of(calls).headline()


def test_a_part_of_the_run_is_not_sold_as_the_whole(core, path):
    whole = core.report.ComputedPath("dense", why="outside 0.5 to 1 of the schedule", whole=True)
    headline = core.benefit.Benefit.of({path(): 57, whole: 1}).headline()
    assert headline == "CLEAR on in a part of the run: 5.0x less attention work there"


def test_a_window_that_saves_nothing_is_off(core, path):
    for calls in ({path(computed=500): 57}, {path(radius=None, computed=0, possible=0): 2}):
        assert core.benefit.Benefit.of(calls).headline().startswith("CLEAR off:")


def test_other_networks_do_not_count(core, path):
    calls = {path(): 57, path(whose="ControlNet", computed=500): 57}
    assert "5.0x" in core.benefit.Benefit.of(calls).headline()


def test_a_node_shows_the_benefit_then_its_own_line_then_what_went_wrong(core, path, shown):
    report = core.report.RunReport()
    report.add(path())
    report.add(path(radius=None, backend="dense", computed=500, why="block double 0 is kept dense"))
    report.note("memory: 24 GiB expected")
    report.note("seamless: positions wrap around after 16 tokens")
    report.warn("a seam may stay")
    about = {"1": core.report.WINDOW, "2": "ntk_factor 10", "3": "memory:"}
    report.publish(("1", "2", "3"), about=about)
    first = "CLEAR on: 1.7x less attention work"
    window = "tiled, radius 4, 32 text + 16 x 16 image tokens"
    dense = "dense, 32 text + 16 x 16 image tokens: block double 0 is kept dense"
    assert shown("1") == [first, window, dense, "a seam may stay"]
    assert shown("2") == [first, "ntk_factor 10", dense, "a seam may stay"]
    assert shown("3") == [first, "memory: 24 GiB expected", dense, "a seam may stay"]


def test_a_long_list_of_own_lines_is_folded(core, path, shown):
    report = core.report.RunReport()
    for text in range(7):
        report.note(f"memory: {text}")
    report.publish(("3",), attention=False, about={"3": "memory:"})
    assert shown("3") == [*(f"memory: {text}" for text in range(3)), "4 more in the log"]


def test_the_log_and_the_saved_picture_have_everything(core, path, shown, caplog, monkeypatch):
    saved = {}
    monkeypatch.setattr(
        core.report.SAVED_REPORTS, "add", lambda text, node: saved.update({node: text})
    )
    report = core.report.RunReport()
    report.add(path())
    report.note("memory: 24 GiB expected")
    with caplog.at_level("INFO"):
        report.publish(("2",), about={"2": "ntk_factor 10"})
    log = [record.getMessage() for record in caplog.records]
    assert log[0] == "CLEAR on: 5.0x less attention work"
    assert any("20.0 % of the pairs (100 of 500)" in line for line in log)
    assert saved["2"].splitlines() == [log[0], *(line.removeprefix("CLEAR: ") for line in log[1:])]


def test_full_attention_is_estimated_from_layers_timed_here(
    flux_model, nodes, sample, core, product, monkeypatch
):
    estimate = product("comfyui.plan.benefit")
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    found = []
    options = model.model_options["transformer_options"]
    assert options[core.benefit.ESTIMATE_KEY] is estimate.seconds_in_full

    def keep(report, patcher):
        found.append((report.seconds, estimate.seconds_in_full(report, patcher)))
        return found[-1][1]

    options[core.benefit.ESTIMATE_KEY] = keep
    monkeypatch.setattr(core.patch, "WORTH_MEASURING", 0.0)
    sample(model)
    ((seconds, in_full),) = found
    assert seconds > 0 and in_full > 0


def test_the_estimate_adds_what_each_layer_saves(
    core, product, flux_model, nodes, monkeypatch, path
):
    """With rates of one second a pair, the difference is that of the pairs."""
    estimate, cost = product("comfyui.plan.benefit"), product("plan.cost")
    one = dict.fromkeys(("linear", "stream", "positions", "heads", "activation", "copy"), 0.0)

    def rates(network, job, machine):
        windows = dict.fromkeys(network.windows(job), cost.WindowRate(0.5, job.backend))
        return cost.Rates(**one, full=1.0, shared=0.5, device=machine.device, windows=windows)

    model_on_cpu = SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setattr(estimate, "measure", rates)
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    report = core.report.RunReport()
    assert estimate.seconds_in_full(report, model) is None
    for _ in range(2):
        report.begin_call(3)
    report.seconds = 10.0
    report.calls[path(backend="masked")] = 2 * 5  # two calls of five blocks
    once = estimate.seconds_in_full(report, model) - 10.0
    network = product("comfyui.core.job").network_of(model)
    settings = core.patch.settings_of(model)
    job = product("comfyui.core.job").job_of(settings, path().layout, 3)
    job = dataclasses.replace(job, backend="masked")
    of_call = [
        cost.attention_seconds(network, each, rates(network, job, model_on_cpu))
        for each in (job.full(), job)
    ]
    assert once == pytest.approx(2 * (of_call[0] - of_call[1]))
    report.calls[path(backend="masked")] = 4 * 5
    assert estimate.seconds_in_full(report, model) - 10.0 == pytest.approx(2 * once)
    report.begin_call(0)  # a third call without pictures: a mean of two
    assert estimate.seconds_in_full(report, model) - 10.0 == pytest.approx(2 * once * 2 / 3)
    assert once > 0


def test_a_short_run_is_not_held_up_by_measuring(core, flux_model, nodes):
    report = core.report.RunReport()
    report.begin_call(1)
    report.stop_clock()
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    refuse = SimpleNamespace(calls=0)

    def estimate(*_):
        refuse.calls += 1
        raise RuntimeError("out of memory")

    model.model_options["transformer_options"][core.benefit.ESTIMATE_KEY] = estimate
    assert core.patch.seconds_in_full(report, model) is None and refuse.calls == 0
    report.seconds = 2 * core.benefit.WORTH_MEASURING
    assert core.patch.seconds_in_full(report, model) is None and refuse.calls == 1
