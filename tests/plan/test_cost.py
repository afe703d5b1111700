"""The planner's arithmetic: operations, seconds and memory from dimensions alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plan_cases import (
    CPU,
    FLUX_DEV,
    FLUX_WIDTHS,
    RATES,
    SMALL_FLUX,
    SMALL_FLUX2,
    SMALL_SD3,
    at_any_window,
    job,
)

from clear_attention import TokenLayout, Window
from clear_attention.families.network import Job, flux
from clear_attention.plan.cost import attention_flop, cost, linear_flop, seconds
from clear_attention.plan.memory import memory

ONE_LAYER = flux(double=1, single=0, **FLUX_WIDTHS)

# Edge in tokens -> the TFLOP of one attention layer in the paper's table 1.
PAPER = {
    None: {64: 0.26, 128: 3.51, 256: 53.60, 512: 847.73},
    8: {64: 0.06, 128: 0.25, 256: 0.98, 512: 3.92},
    16: {64: 0.09, 128: 0.35, 256: 1.43, 512: 5.79},
    32: {64: 0.15, 128: 0.72, 256: 3.14, 512: 13.09},
}


@pytest.mark.parametrize("edge", [64, 128, 256, 512])
@pytest.mark.parametrize("radius", PAPER)
def test_the_attention_s_operations_are_those_of_the_paper(radius, edge):
    tera = attention_flop(ONE_LAYER, job(edge, edge, 512, radius)) / 1e12
    assert tera == pytest.approx(PAPER[radius][edge], abs=0.0051)


def test_the_linear_layers_of_flux_dev_are_counted():
    """Of its 11.9 billion weights, 8.6 are applied per token; the rest modulates per picture."""
    per_block = 4 * 3072**2 + 2 * 3072 * 12288
    image = 57 * per_block + 3072 * 128
    text = 57 * per_block + 3072 * 4096
    expected = 2 * (4096 * image + 512 * text)
    assert linear_flop(FLUX_DEV, job(64, 64, 512)) == expected
    assert image == pytest.approx(6.46e9, rel=0.01)


def test_reference_tokens_cost_as_much_as_those_of_the_picture():
    layout = TokenLayout(4, 8, 6, extra=10)
    more = linear_flop(SMALL_FLUX, Job(layout)) - linear_flop(SMALL_FLUX, job(radius=None))
    assert more == 2 * 10 * SMALL_FLUX.image_weights


def every_block(network):
    """Return the blocks of a network."""
    return frozenset(
        (each.kind, index) for each in network.attentions for index in range(each.count)
    )


JOBS = st.builds(
    job,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    text=st.integers(0, 64),
    radius=st.integers(1, 12),
    batch=st.integers(1, 4),
    pool_factor=st.sampled_from([0, 1, 2, 3]),
)
NETWORKS = st.sampled_from([SMALL_FLUX, SMALL_FLUX2, SMALL_SD3])


@given(NETWORKS, JOBS)
def test_everything_is_proportional_to_the_batch(network, call):
    one = dataclasses.replace(call, batch=1)
    assert attention_flop(network, call) == call.batch * attention_flop(network, one)
    assert linear_flop(network, call) == call.batch * linear_flop(network, one)
    assert seconds(network, call, RATES) == pytest.approx(call.batch * seconds(network, one, RATES))


@given(NETWORKS, JOBS)
def test_attentions_that_all_stay_dense_cost_what_full_attention_costs(network, call):
    dense = dataclasses.replace(call, dense=every_block(network))
    assert attention_flop(network, dense) == attention_flop(network, call.full())
    assert seconds(network, dense, RATES) == pytest.approx(seconds(network, call.full(), RATES))


@given(NETWORKS, JOBS)
def test_a_window_over_the_whole_grid_needs_every_pair(network, call):
    covering = dataclasses.replace(call, window=Window(100), pool_factor=0)
    full = attention_flop(network, call.full())
    assert attention_flop(network, covering) == full
    assert attention_flop(network, dataclasses.replace(call, pool_factor=0)) <= full


@given(NETWORKS, JOBS, st.sampled_from([torch.float32, torch.bfloat16]))
def test_slices_never_need_more_memory_than_the_whole(network, call, dtype):
    whole = memory(network, call, dtype, CPU)
    assert 0 < memory(network, call, dtype, CPU, 0) <= whole


@given(NETWORKS, JOBS, st.integers(1, 12))
def test_a_radius_per_block_costs_what_its_blocks_cost(network, call, radius):
    """Of SD3, whose first blocks attend twice, a block is all of its attentions."""
    other = dataclasses.replace(call, window=Window(radius))
    kind = network.attentions[0].kind
    some = {(kind, 0): radius}
    rest = dataclasses.replace(call, radii={block: radius for block in every_block(network)})
    for count in (attention_flop, lambda *given: seconds(*given, RATES)):
        assert count(network, rest) == pytest.approx(count(network, other))
        one = count(network, dataclasses.replace(call, radii=some)) - count(network, call)
        without = dataclasses.replace(call, dense=frozenset(some))
        of_other = dataclasses.replace(other, dense=frozenset(some))
        change = count(network, other) - count(network, of_other)
        assert one == pytest.approx(change - (count(network, call) - count(network, without)))
    of_mix = memory(network, dataclasses.replace(call, radii=some), torch.float32, CPU)
    alone = [memory(network, each, torch.float32, CPU) for each in (call, other)]
    assert min(alone) <= of_mix <= max(alone)
    if network is not SMALL_SD3:
        assert of_mix == max(alone)


def test_a_gated_mlp_has_one_matrix_more_and_twice_the_inside():
    plain, gated, tokens = SMALL_FLUX, SMALL_FLUX2, job().layout.tokens
    assert gated.image_weights - plain.image_weights == 3 * 32 * 48
    assert gated.text_weights - plain.text_weights == 3 * 32 * 48
    more = linear_flop(gated, job()) - linear_flop(plain, job())
    assert more == 2 * tokens * 3 * 32 * 48
    for blocks, whole in zip(gated.blocks, plain.blocks, strict=True):
        assert [live.mlp for live in blocks.moments] == [2 * live.mlp for live in whole.moments]


def test_slices_save_the_mlp_of_a_large_flux():
    call = job(512, 512, 512, 16)
    whole = memory(FLUX_DEV, call, torch.bfloat16, CPU)
    sliced = memory(FLUX_DEV, call, torch.bfloat16, CPU, 0)
    assert whole / 2**30 == pytest.approx(24, rel=0.15)
    assert sliced < 0.45 * whole


def test_seconds_add_up_by_hand():
    """One single block of width 4, MLP 8, on 2 text and 6 image tokens."""
    network = flux(
        hidden=4, heads=1, mlp=8, double=0, single=1, latent_values=0, input_values=0, context=0
    )
    call = job(3, 2, 2, radius=1)
    linear = 1e-9 * 2 * 8 * (4 * 16 + 2 * 32)
    per_token = 1e-7 * 4 + 2e-7 * 2 * 4 + 3e-7 * 8 + 4e-8 * (4 + 8) + 1e-5
    shared = 2e-9 * (2 * 8 + 6 * 2) * 4
    window = 5e-9 * 6 * 4
    expected = linear + 8 * per_token + shared + window
    assert seconds(network, call, RATES) == pytest.approx(expected)
    full = linear + 8 * per_token + 1e-9 * 64 * 4
    assert seconds(network, call.full(), RATES) == pytest.approx(full)
    masked = dataclasses.replace(RATES, windows=at_any_window(5e-9, "masked"))
    assert seconds(network, call, masked) == pytest.approx(linear + 8 * per_token + 5e-9 * 64 * 4)


def test_the_image_attention_of_sd3_leaves_the_text_out():
    text, image = 40, 48
    pairs = 3 * (text + image) ** 2 + image**2
    assert attention_flop(SMALL_SD3, job(text=text, radius=None)) == 4 * 32 * pairs
    local = attention_flop(SMALL_SD3, job(text=text, dense={("joint", 1), ("joint", 2)}))
    disc = Window(3).pairs(8, 6)
    everywhere = text**2 + 2 * text * image + disc
    assert local == 4 * 32 * (2 * (text + image) ** 2 + everywhere + disc)


def test_the_pooled_branch_costs_time_and_operations():
    plain, pooled = job(20, 20), job(20, 20, pool_factor=2)
    more = 4 * 32 * 3 * 400 * 100
    assert attention_flop(SMALL_FLUX, pooled) - attention_flop(SMALL_FLUX, plain) == more
    extra = seconds(SMALL_FLUX, pooled, RATES) - seconds(SMALL_FLUX, plain, RATES)
    assert extra == pytest.approx(RATES.shared * 32 * 3 * 400 * 100)


def test_without_rates_a_cost_has_no_seconds():
    found = cost(SMALL_FLUX, job(), torch.float32, CPU)
    assert found.seconds == 0 and found.flop == found.linear_flop + found.attention_flop > 0


def test_half_the_bytes_need_about_half_the_memory():
    call = job(64, 64, 0, 8)
    full, half = (memory(FLUX_DEV, call, dtype, CPU) for dtype in (torch.float32, torch.bfloat16))
    assert 0.5 < half / full < 0.65  # positions and the rotation stay in float32
