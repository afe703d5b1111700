"""The model's response: what its velocity does when windows change its attentions' output."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

GRID = (4, 3)


@pytest.fixture(scope="module")
def module(product) -> ModuleType:
    return product("comfyui.probe.response")


def test_changes_are_enlarged_to_half_of_each_token_and_others_stay(module):
    out = torch.randn(2, 15, 6)
    values = torch.randn(2, 3, 6) * 1e-6
    values[:, 1] = 0
    changed, applied = module.Change(GRID, torch.tensor([0, 2, 9]), 3, values).applied(out)
    difference = changed - out
    torch.testing.assert_close(difference[:, [3, 5, 12]], applied.values)
    torch.testing.assert_close(
        difference[:, [3, 12]].norm(dim=-1), 0.5 * out[:, [3, 12]].norm(dim=-1)
    )
    cosine = torch.cosine_similarity(difference[:, [3, 12]], values[:, [0, 2]], dim=-1)
    torch.testing.assert_close(cosine, torch.ones(2, 2))
    difference[:, [3, 12]] = 0
    assert not difference.any()


@given(
    image=st.integers(1, 200), share=st.floats(0.01, 1), blocks=st.integers(1, 60), data=st.data()
)
def test_blocks_share_no_token_and_half_of_all_stay(module, image, share, blocks, data):
    tokens = torch.arange(image)[: max(1, round(share * image))]
    chosen = [module.tokens_of_block(tokens, image, at, blocks).tolist() for at in range(blocks)]
    used = [token for each in chosen for token in each]
    assert len(used) == len(set(used)) <= image // 2 + blocks
    if 2 * len(tokens) <= image:
        assert sorted(used) == list(range(len(tokens)))
    sizes = [len(each) for each in chosen]
    assert max(sizes) - min(sizes) <= 1


def test_gains_are_the_response_at_a_block_s_own_tokens_without_what_others_see(module):
    squares = torch.full(GRID, 0.5)
    squares[0, 1], squares[3, 2] = 2.5, 4.5
    ones = torch.ones(2, 1, 8)  # squared: 16 in the batch of two
    changes = {
        ("double", 0): module.Change(GRID, torch.tensor([1]), 0, ones),
        ("single", 0): module.Change(GRID, torch.tensor([11]), 0, 2 * ones),
        ("single", 1): module.Change(GRID, torch.tensor([5]), 0, ones),
        ("single", 2): module.Change((2, 3), torch.tensor([3]), 0, ones),
        ("single", 3): module.Change(GRID, torch.tensor([]).long(), 0, ones[:, :0]),
    }
    gains = module.gains_of(changes, squares)
    # What others make of it is no response: of (single, 1), as little is taken as of any block.
    assert gains == {("double", 0): 2 / 16, ("single", 0): 4 / 64, ("single", 1): 4 / 64}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.5])
def test_responses_that_are_not_finite_or_not_there_are_no_measurement(module, value):
    changes = {("double", 0): module.Change(GRID, torch.tensor([1]), 0, torch.ones(2, 1, 8))}
    assert module.gains_of(changes, torch.full(GRID, value)) == {}


@pytest.mark.parametrize("frames", [(), (1,)], ids=["picture", "one frame"])
def test_latents_are_compared_token_by_token_also_where_the_last_ones_stick_out(module, frames):
    before = torch.zeros(2, 3, *frames, 7, 5)
    after = before.clone()
    after[..., 2, 3] = 3.0  # token (1, 1), of four pixels
    after[0, ..., 6, 4] = 2.0  # token (3, 2), of one pixel
    squares = module.squares_by_token(before, after, 2)
    assert squares.shape == GRID
    assert squares[1, 1] == 2 * 9 / 4 and squares[3, 2] == 4
    assert squares.count_nonzero() == 2
