"""CLEAR on Chroma in the real host: FLUX's blocks in a class of their own."""

from __future__ import annotations

import pytest
import torch

from ..chroma_fixtures import inputs
from ..flux_runs import dense_override, disc_bias, recorded_ids, with_override
from ..low_memory_fixtures import SLICE, same

RADIUS = 4


def assert_close(actual, expected):
    """Compare two velocities in float32: attention's rounding through five blocks."""
    assert actual.isfinite().all()
    assert (actual - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize("size", [(23, 18), (22, 14)], ids=["odd", "even"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_window_over_the_whole_grid_equals_full_attention(size, batch, chroma_model, nodes, run):
    model, arguments = chroma_model(), inputs(*size, batch=batch)
    assert_close(run(nodes.CLEARAttention(model, 64), **arguments), run(model, **arguments))


@pytest.mark.parametrize("text", [1, 40, 300])
def test_window_equals_a_mask_written_by_hand(text, chroma_model, nodes, run):
    model, arguments = chroma_model(), inputs(text=text)
    expected = run(with_override(model, dense_override(disc_bias(text, 12, 9))), **arguments)
    local = run(nodes.CLEARAttention(model, RADIUS), **arguments)
    assert_close(local, expected)
    assert not torch.allclose(local, run(model, **arguments), atol=1e-3)


def test_exactly_the_disc_reacts_to_one_changed_latent_cell(chroma_model, nodes, run):
    """In one block, where nothing reaches a token through the text."""
    model, arguments = nodes.CLEARAttention(chroma_model("one block"), RADIUS), inputs(24, 20)
    before = run(model, **arguments)
    changed = {**arguments, "x": arguments["x"].clone()}
    changed["x"][..., 11, 8] += 5.0  # in the token (5, 4)
    same_ = (run(model, **changed) == before).all(dim=1)[0]
    untouched = same_.unflatten(0, (12, 2)).unflatten(2, (10, 2)).all(3).all(1)
    y, x = torch.arange(12)[:, None] - 5, torch.arange(10) - 4
    assert torch.equal(untouched, y * y + x * x >= RADIUS * RADIUS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("node", ["CLEARAttention", "CLEARSeamless"])
def test_every_token_beyond_4096_pixels_has_a_position_of_its_own(
    node, dtype, chroma_model, nodes, run
):
    model = getattr(nodes, node)(chroma_model("one block"))
    arguments = {
        key: value if key == "timestep" else value.to(dtype)
        for key, value in inputs(height=1200, width=4, text=3).items()
    }
    model.set_model_compute_dtype(dtype)
    ids = recorded_ids(model, run, arguments)
    expected = torch.cartesian_prod(torch.arange(600.0), torch.arange(2.0))
    assert torch.equal(ids[0, 3:, 1:].double(), expected.double())
    assert not ids[0, :3].any()
    assert not ids[0, :, 0].any()


def test_in_half_precision_only_the_positions_change(chroma_model, nodes, run):
    """Against a host whose embedder is given the right ids: 600 rows, some of which collide."""
    arguments = inputs(height=1200, width=4, text=3)
    model = chroma_model("one block")
    model.set_model_compute_dtype(torch.bfloat16)
    collided = run(model, **arguments)
    exact = run(nodes.CLEARHighRes(model, 1.0, False), **arguments)
    grid = torch.cartesian_prod(torch.zeros(1), torch.arange(600.0), torch.arange(2.0))
    ids = torch.cat((torch.zeros(3, 3), grid))[None]
    embedder = model.model.diffusion_model.pe_embedder
    embedder.register_forward_pre_hook(lambda module, args: ids)
    assert torch.equal(exact, run(model, **arguments))
    assert not torch.equal(exact, collided)


def test_the_rotary_base_is_scaled_and_the_last_factor_wins(chroma_model, nodes, run):
    model, arguments = chroma_model(), inputs()
    once = nodes.CLEARHighRes(model, 10.0, False)
    twice = nodes.CLEARHighRes(once, 2.0, False)
    path = "diffusion_model.pe_embedder"
    theta = [each.get_model_object(path).theta for each in (model, once, twice)]
    assert theta == [10000, 100000, 20000]
    by_hand = chroma_model()
    by_hand.model.diffusion_model.pe_embedder.theta = 100000
    assert torch.equal(run(once, **arguments), run(by_hand, **arguments))


def test_a_seamless_picture_moves_with_its_latent(chroma_model, nodes, run):
    """Without the text, which lies at one place, from which a roll would be seen."""
    model = nodes.CLEARSeamless(nodes.CLEARAttention(chroma_model(), RADIUS))
    mask = torch.zeros(1, 121, 121)
    mask[:, 1:, :1] = -torch.inf
    arguments = {**inputs(24, 20, text=1), "attention_mask": mask}
    velocity = run(model, **arguments)
    moved = {**arguments, "x": arguments["x"].roll((6, 4), (2, 3))}
    difference = run(model, **moved) - velocity.roll((6, 4), (2, 3))
    # Angles of the periodic rotations, in float32, through five blocks.
    assert difference.abs().max() <= 1e-4 * velocity.abs().max()


def test_blocks_in_slices_give_the_same(chroma_model, nodes, run, lengths):
    model, arguments = chroma_model(), inputs(height=30, width=40)
    expected = run(model, **arguments)
    lengths.clear()
    same(run(nodes.CLEARLowMemory(model, SLICE), **arguments), expected)
    assert max(set(lengths) - {344}) == SLICE  # besides the modulations of all blocks


def test_chosen_blocks_stay_dense(chroma_model, nodes, run):
    model, arguments = chroma_model(), inputs()
    every = nodes.CLEARAttention(model, RADIUS, dense_blocks="double 0-1, single 0-2")
    assert torch.equal(run(every, **arguments), run(model, **arguments))
    with pytest.raises(ValueError, match="which has double 0-1, single 0-2, got single 3"):
        nodes.CLEARAttention(model, RADIUS, dense_blocks="single 3")
