"""Several devices in a plan: what each computes and receives, and where one would be as fast."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_cases import FLUX_DEV, RATES, SMALL_FLUX, SMALL_SD3, at_any_window, job, plan

from clear_attention.parallel.partition import share_out
from clear_attention.plan.cost import seconds
from clear_attention.plan.devices import (
    Devices,
    SharedCost,
    rank_seconds,
    received_in_call,
    shared_cost,
)
from clear_attention.plan.devices_table import BOUND, SizeOnDevices, lines_on_devices
from clear_attention.plan.outcome import TimedCall, outcome

TEXT = 512

# (edge in tokens, radius) -> GB that an inner rank of 2, 4 and 8 receives in a step of FLUX.1, from
# the number of lines alone: (r - 1) of them per neighbour, and the text's parts of all others.
TRAFFIC = {(256, 16): (2.9, 5.9, 6.7), (512, 8): (2.7, 5.6, 6.3), (512, 32): (11.3, 22.8, 23.5)}

JOBS = st.builds(
    job,
    height=st.integers(4, 24),
    width=st.integers(4, 24),
    text=st.integers(0, 16),
    radius=st.sampled_from([None, 1, 3, 40]),
    pool_factor=st.sampled_from([0, 2]),
    batch=st.integers(1, 2),
)
NETWORKS = st.sampled_from([SMALL_FLUX, SMALL_SD3])


ATTENTION_ALONE = dict.fromkeys(
    ("linear", "stream", "positions", "heads", "activation", "copy"), 0.0
)


def on(count, link=1e15, **more):
    return Devices(count, link, **more)


@pytest.mark.parametrize(("edge", "radius"), TRAFFIC)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_traffic_of_flux_is_that_of_its_halo_and_text(edge, radius, place):
    count, expected = (2, 4, 8)[place], TRAFFIC[edge, radius][place]
    found = shared_cost(FLUX_DEV, job(edge, edge, TEXT, radius), RATES, on(count), 2)
    assert found.received / 1e9 == pytest.approx(expected, abs=0.051)


def test_the_halo_is_counted_for_each_neighbour_by_hand():
    call, inner = job(12, 6, 5, 3), 1
    partition = share_out(12, 6, (1, 1, 1))
    found = received_in_call(SMALL_FLUX, call, partition, inner, 4)
    lines = 2 * 2 * 6  # of two neighbours (r - 1) lines of 6 tokens
    halo = lines * 2 * 32 * 4  # keys and values, 32 values of 4 bytes
    text = 2 * 5 * (32 + 2) * 4  # of two ranks: outputs, and a log-sum-exp for each of 2 heads
    assert found == 3 * (halo + text)
    first = received_in_call(SMALL_FLUX, call, partition, 0, 4)
    joined = 8 * 6 * 8 * 4  # the result of the other bands, 8 values a token
    assert first == 3 * (halo // 2 + text) + joined


@given(NETWORKS, JOBS)
def test_one_device_alone_receives_nothing_and_takes_what_it_takes(network, call):
    found = shared_cost(network, call, RATES, on(1), 4)
    assert found.received == 0
    # On a rank text is attended to by plain fused attention, whatever the backend does.
    rates = dataclasses.replace(RATES, full=RATES.shared)
    found = shared_cost(network, call, rates, on(1), 4)
    assert found.seconds == pytest.approx(seconds(network, call, rates))


@given(NETWORKS, JOBS, st.integers(2, 4))
def test_all_ranks_together_repeat_the_text_and_the_positions_only(network, call, count):
    layout, multiple = call.layout, max(1, call.pool_factor)
    if max(layout.height, layout.width) < count * multiple:
        assert shared_cost(network, call, RATES, on(count), 4) is None
        return
    rates = dataclasses.replace(RATES, full=RATES.shared)
    partition = share_out(layout.height, layout.width, (1,) * count, multiple=multiple)
    ranks = sum(rank_seconds(network, call, rates, partition, rank) for rank in range(count))
    text = dataclasses.replace(call, layout=dataclasses.replace(layout, height=1, width=1))
    positions = rates.positions * layout.tokens * call.batch
    repeated = seconds(network, text, rates) + positions
    assert ranks <= (seconds(network, call, rates) + (count - 1) * repeated) * (1 + 1e-9)


@pytest.mark.parametrize("radius", [None, 40])
def test_each_pair_is_computed_once(radius):
    """A window over the whole grid: all pairs, wherever the cuts lie."""
    rates = dataclasses.replace(
        RATES, **ATTENTION_ALONE, full=1.0, shared=1.0, windows=at_any_window(1.0)
    )
    call, partition = job(12, 8, 5, radius), share_out(12, 8, (1, 1, 1))
    ranks = sum(rank_seconds(SMALL_FLUX, call, rates, partition, rank) for rank in range(3))
    assert ranks == 3 * 32 * (5 + 12 * 8) ** 2  # three attentions, 32 values of the heads


@given(NETWORKS, JOBS, st.integers(2, 4))
def test_devices_are_never_more_times_faster_than_there_are(network, call, count):
    # The text of ranks is attended to at the rate of parts, here nine times as fast.
    rates = dataclasses.replace(RATES, **ATTENTION_ALONE, full=9 * RATES.shared)
    found = shared_cost(network, call, rates, on(count), 4)
    if found is not None:
        assert found.seconds >= seconds(network, call, rates) / count * (1 - 1e-9)


def test_a_slow_link_costs_its_seconds():
    call = job(24, 24, 8, 3)
    fast, slow = (shared_cost(SMALL_FLUX, call, RATES, on(2, link), 4) for link in (1e15, 1e5))
    assert fast.received == slow.received
    assert slow.seconds - fast.seconds == pytest.approx(slow.received / 1e5, rel=0.05)


def test_dense_blocks_and_full_steps_exchange_whole_pictures():
    partition = share_out(24, 24, (1,) * 4)

    def received(radius=3, **more):
        return received_in_call(SMALL_FLUX, job(24, 24, 8, radius, **more), partition, 1, 4)

    local, full = received(), received(None)
    assert local < full
    dense = received(dense={("double", 0)})  # one of three attentions
    assert dense == pytest.approx(local + (full - local) / 3)
    assert received(local_share=0.5) == pytest.approx((local + full) / 2)


def test_more_devices_than_lines_cannot_share():
    assert shared_cost(SMALL_FLUX, job(3, 3, 4, 2), RATES, on(4), 4) is None
    assert shared_cost(SMALL_FLUX, job(7, 7, 4, 2, pool_factor=4), RATES, on(3), 4) is None


def test_wide_pictures_are_cut_into_columns():
    tall, wide = (
        shared_cost(SMALL_FLUX, job(*size, 4, 3), RATES, on(2), 4) for size in ((24, 6), (6, 24))
    )
    assert tall == wide


def test_the_table_says_where_one_device_is_as_fast():
    sizes = [
        SizeOnDevices("worth it", 2.0, SharedCost(1.0, 3_000_000)),
        SizeOnDevices("just", 1.1, SharedCost(1.0, 1)),
        SizeOnDevices("not", 1.09, SharedCost(1.0, 1)),
        SizeOnDevices("slower", 1.0, SharedCost(2.0, 1)),
        SizeOnDevices("tiny", 1.0, None),
    ]
    lines = lines_on_devices(on(2, 12e9), sizes)
    assert "on 2 devices with 12 GB/s between them" in lines[1]
    assert lines[3].split()[-4:] == ["2", "1", "3", "2.00"]
    assert lines[4].endswith("1.10")
    assert all(line.endswith("one is as fast") for line in lines[5:7])
    assert lines[7].endswith("too small to share")
    assert lines[-1] == BOUND


def test_one_device_leaves_the_table_as_it_was():
    without = plan()
    one = dataclasses.replace(without, devices=Devices(1, 5e9))
    assert without.table() == one.table()
    assert "devices" not in without.table()


def test_a_model_that_cannot_be_shared_is_named():
    why = "where X models mix tokens is not known"
    table = plan(devices=Devices(2, why_one=why)).table()
    assert table.splitlines()[-1] == f"2 devices: one of them would compute everything: {why}."


def test_the_plan_has_a_row_for_each_size():
    table = plan(call=job(32, 32), devices=Devices(2, 1e15)).table().splitlines()
    start = next(i for i, line in enumerate(table) if line.startswith("on 2 devices"))
    assert [line[:28].strip() for line in table[start + 2 : -1]] == [
        "512 x 512 (planned)",
        *(f"{edge} x {edge}" for edge in (512, 1024, 2048, 4096, 8192)),
    ]
    # The planned size is one of them, so that both rows say the same.
    assert table[start + 2][28:] == table[start + 3][28:]


def call(seconds_, devices, radius=3):
    return TimedCall(1, 24, 24, radius, seconds_, devices)


def test_a_shared_run_is_held_against_the_shared_plan():
    planned = plan(call=job(24, 24), devices=Devices(2, 1e9))
    expected = planned.on_devices().seconds
    (line,) = outcome(planned, [call(expected, 2)] * 2, peak=10**9)
    assert "CLEAR r = 3, 2 devices:" in line and "(as expected)" in line
    full = planned.on_devices(planned.job.full()).seconds
    (line,) = outcome(planned, [call(full, 2, None)])
    assert "full attention, 2 devices:" in line and "(as expected)" in line


@pytest.mark.parametrize(("planned", "ran"), [(2, 1), (1, 2), (3, 2)])
def test_a_run_on_other_devices_than_planned_is_not_compared(planned, ran):
    (line,) = outcome(plan(call=job(24, 24), devices=Devices(planned)), [call(1.0, ran)])
    assert f"on {planned} device" in line and f"with radius 3 on {ran} device" in line
