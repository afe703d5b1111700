"""The work and the traffic of each rank, counted in runs through the host's sampler."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..flux_runs import conditioning

HEIGHT, WIDTH = 24, 16  # in tokens
TEXT, RADIUS, STEPS = 12, 3, 2


def fused(q, k, v, *_, **__):
    """Count torch's fused attention on a CPU, which its own counter does not know."""
    return sdpa_flop_count(q, k, v)


def flop_counter():
    """Return a counter of this thread's work."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={attention: fused})


@pytest.fixture
def painted(host):
    """Sample a few steps without CFG: each step is one model call."""
    import comfy.sample

    def run(model, height=HEIGHT, width=WIDTH):
        noise = torch.randn(
            1, 16, 2 * height, 2 * width, generator=torch.Generator().manual_seed(1)
        )
        positive = conditioning(TEXT, 2)
        with torch.inference_mode():
            return comfy.sample.sample(
                *(model, noise, STEPS, 1.0, "euler", "simple", positive, positive),
                torch.zeros_like(noise),
                disable_pbar=True,
                seed=0,
            )

    return run


@pytest.fixture
def teams(product, monkeypatch):
    """The teams of all runs, with what torch counted of each rank's work."""
    team = product("comfyui.parallel.team")
    made: list = []
    compute, model_call = team.Team.compute, team.model_call

    def remember(self, *args):
        made.append(self)
        return compute(self, *args)

    def counted(executor, family, geometry, model, seat, arguments):
        with flop_counter() as counter:
            out = model_call(executor, family, geometry, model, seat, arguments)
        rank = made[-1].ranks[seat.rank]
        rank.flop = getattr(rank, "flop", 0) + counter.get_total_flops()
        return out

    monkeypatch.setattr(team.Team, "compute", remember)
    monkeypatch.setattr(team, "model_call", counted)
    return made


@pytest.fixture
def planned(product):
    """Return the plan's dimensions of a model and its call, cut for so many ranks."""
    model, partition = product("comfyui.plan.model"), product("parallel.partition")

    def plan(used, count, multiple=1):
        found = model.plan_model(
            used, (16 * HEIGHT, 16 * WIDTH), text_tokens=TEXT, devices=count, link=1e9
        )
        return found, partition.share_out(HEIGHT, WIDTH, (1,) * count, multiple=multiple)

    return plan


def work_of_one(painted, model):
    with flop_counter() as counter:
        painted(model)
    return counter.get_total_flops() / STEPS


MODELS = {
    "window": dict(radius=RADIUS, backend="reference"),
    "pooled": dict(radius=RADIUS, pool_factor=2, backend="reference"),
    "dense blocks": dict(radius=RADIUS, dense_blocks="double 0", backend="reference"),
    "full": None,
}


def with_window(nodes, model, given):
    return model if given is None else nodes.CLEARAttention(model, **given)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_rank_computes_its_share_and_text_and_halo(
    count, painted, teams, flux_model, nodes, product
):
    """By the reference backend, whose work is its queries times the keys that it is given."""
    model = nodes.CLEARAttention(flux_model("a"), RADIUS, backend="reference")
    one = work_of_one(painted, model)
    painted(nodes.CLEARParallel(model, ",".join(["cpu"] * count)))
    network = product("comfyui.core.job").network_of(model)
    pair = 4 * network.hidden * sum(each.count for each in network.attentions)

    def linear(image):
        return 2 * (network.image_weights * image + network.text_weights * TEXT)

    image = HEIGHT * WIDTH
    once = one - linear(image) - pair * (TEXT + image) ** 2  # per picture: modulation, positions
    assert 0 < once < one / 10
    own = image // count
    repeated = once + 2 * network.text_weights * TEXT + pair * TEXT * TEXT
    for index, rank in enumerate(teams[-1].ranks):
        neighbours = (index > 0) + (index < count - 1)
        keys = TEXT + own + neighbours * (RADIUS - 1) * WIDTH
        asked_by_text = TEXT * (own + (TEXT if index == 0 else 0))
        expected = once + linear(own) + pair * (own * keys + asked_by_text)
        assert rank.flop == STEPS * expected
        # On one device each row's queries have all keys, which are more than those of a halo.
        assert rank.flop / STEPS <= one / count + (1 - 1 / count) * repeated


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_the_bytes_of_a_step_are_those_of_the_formula(
    name, count, painted, teams, flux_model, nodes, planned, product
):
    model = with_window(nodes, flux_model("b"), MODELS[name])
    painted(nodes.CLEARParallel(model, ",".join(["cpu"] * count)))
    devices = product("plan.devices")
    found, partition = planned(model, count, multiple=2 if name == "pooled" else 1)
    job = found.job.full() if name == "full" else found.job
    team = teams[-1]
    assert team.calls == STEPS
    for index, rank in enumerate(team.ranks):
        expected = devices.received_in_call(found.network, job, partition, index, 4)
        assert rank.received == STEPS * expected > 0


def test_the_plan_s_traffic_is_that_of_the_busiest_rank(painted, teams, flux_model, nodes, planned):
    model = nodes.CLEARAttention(flux_model("b"), RADIUS)
    painted(nodes.CLEARParallel(model, "cpu,cpu,cpu"))
    found, _ = planned(model, 3)
    busiest = max(rank.received for rank in teams[-1].ranks)
    assert STEPS * found.on_devices().received == busiest


def test_a_run_on_two_devices_is_held_against_their_plan(
    painted, flux_model, nodes, node_classes, caplog
):
    """In either order of the nodes, and by the first rank alone."""
    caplog.set_level(logging.INFO)
    parallel = nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), RADIUS), "cpu,cpu")
    given = dict(width=16 * WIDTH, height=16 * HEIGHT, text_tokens=TEXT)
    text, _, planned = node_classes["CLEARPlan"].execute(parallel, **given).args
    assert "on 2 devices with 12 GB/s" in text
    painted(planned)
    assert f"Plan and run, CLEAR r = {RADIUS}, 2 devices:" in caplog.text
    assert f"the best of {STEPS - 1} calls of 1 picture." in caplog.text
    caplog.clear()
    alone = nodes.CLEARAttention(flux_model("b"), RADIUS)
    _, _, planned = node_classes["CLEARPlan"].execute(alone, **given, devices=2).args
    painted(nodes.CLEARParallel(planned, "cpu,cpu"))
    assert f"Plan and run, CLEAR r = {RADIUS}, 2 devices:" in caplog.text
    caplog.clear()
    painted(planned)
    assert "on 2 devices, the run had 24 x 16 with radius 3 on 1 device" in caplog.text


def test_a_model_whose_cut_is_not_known_is_planned_on_one_device(
    sd3_model, node_classes, product, monkeypatch
):
    module = product("comfyui.plan.model")
    monkeypatch.setattr(
        module, "require_family", without_cut(product("comfyui.families").require_family)
    )
    text = node_classes["CLEARPlan"].execute(sd3_model("3-medium"), 160, 160, devices=2).args[0]
    assert text.splitlines()[-1].startswith(
        "2 devices: one of them would compute everything: where"
    )


def without_cut(require_family):
    import dataclasses

    return lambda model: dataclasses.replace(require_family(model), cut=None)


def test_the_report_counts_rows_megabytes_and_milliseconds(
    painted, teams, flux_model, nodes, lines
):
    painted(nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), RADIUS), "cpu,cpu", "2:1"))
    (line,) = [line for line in lines() if line.startswith("parallel: each of 2 model calls took")]
    number = r"([\d.,]+)"
    ranks = re.findall(
        rf"cpu computed (\d+) of 24 rows of tokens, received {number} MB and waited {number} ms",
        line,
    )
    assert [int(rows) for rows, _, _ in ranks] == [16, 8]
    for (_, megabytes, waited), rank in zip(ranks, teams[-1].ranks, strict=True):
        assert float(megabytes) == pytest.approx(rank.received / STEPS / 1e6, abs=0.0051)
        waited_ms = 1000 * rank.waited / (STEPS - 1)  # the first one is left out
        assert float(waited.replace(",", "")) == pytest.approx(waited_ms, abs=0.051)
