"""A block's response: what its output does when windows change its attention's output."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType

import pytest
import torch
from torch import nn

ROWS = torch.tensor([3, 5, 6])


@pytest.fixture(scope="module")
def module(product) -> ModuleType:
    return product("comfyui.probe.response")


class Block(nn.Module):
    """Adds to its input in place, as the host's blocks do: a gated projection, then an MLP.

    Args:
        attend: Its attention.
        second: A further attention, whose result is added as it is, or None.
    """

    def __init__(self, attend, second=None):
        super().__init__()
        torch.manual_seed(0)
        self.attend, self.second = attend, second
        self.projection, self.mlp = nn.Linear(6, 4), nn.Linear(4, 4)
        self.gate = torch.tensor([0.5, 0.0, 2.0, 1.0])
        self.runs = 0

    def forward(self, x, text=None):
        self.runs += 1
        x += self.gate * self.projection(self.attend(x))
        if self.second is not None:
            x += self.second(x)
        x += self.mlp(x.tanh())
        return text, x


def attention(responses, module, changes, found):
    """Return an attention whose result the responses change in a second run."""
    calls = []

    def attend(x):
        if responses.runs_again:
            return responses.attend_again()
        calls.append(x.clone())
        out = torch.randn(x.shape[0], x.shape[1], 6, generator=torch.manual_seed(1))
        changed = None if changes is None else module.with_changes(out, ROWS, changes)
        responses.add(module.Attended(out, changed, None if changes is None else found.append))
        return out

    return attend, calls


@torch.inference_mode()
@pytest.mark.parametrize("batch", [1, 2])
def test_the_gain_is_what_the_block_makes_of_the_changes(module, batch):
    responses, found = module.Responses(nullcontext), []
    changes = torch.randn(batch, len(ROWS), 6)
    attend, calls = attention(responses, module, changes, found)
    block, x = Block(attend), torch.randn(batch, 8, 4)
    with responses.watched([block]):
        _, output = block(x.clone())
    out = torch.randn(batch, 8, 6, generator=torch.manual_seed(1))
    changed = out.clone()
    length = 0.5 * out[:, ROWS].norm(dim=-1, keepdim=True)
    changed[:, ROWS] += length * changes / changes.norm(dim=-1, keepdim=True)
    outputs = [Block(lambda x, out=each: out)(x.clone())[1] for each in (out, changed)]
    expected = (outputs[0] - outputs[1]).square().sum() / (out - changed).square().sum()
    assert found == [pytest.approx(float(expected), rel=1e-5)]
    assert output.equal(outputs[0])
    assert (block.runs, len(calls)) == (2, 1)


@torch.inference_mode()
def test_a_block_that_hides_its_attention_has_no_gain(module):
    responses, found = module.Responses(nullcontext), []
    attend, _ = attention(responses, module, torch.randn(1, 3, 6), found)
    block = Block(attend)
    block.gate = torch.zeros(4)
    with responses.watched([block]):
        block(torch.randn(1, 8, 4))
    assert found == [0.0]


@torch.inference_mode()
def test_each_attention_of_a_block_is_changed_by_itself_and_others_return_what_they_did(module):
    responses, first, second = module.Responses(nullcontext), [], []
    attend, _ = attention(responses, module, torch.randn(1, 3, 6), first)
    again, calls = attention(responses, module, torch.randn(1, 3, 6), second)
    block = Block(attend, lambda x: again(x)[..., :4])
    with responses.watched([block]):
        block(torch.randn(1, 8, 4))
    assert len(first) == len(second) == 1 and first != second
    assert (block.runs, len(calls)) == (3, 1)


@torch.inference_mode()
def test_attentions_of_which_no_response_is_wanted_cost_no_second_run(module):
    responses = module.Responses(nullcontext)
    attend, _ = attention(responses, module, None, [])
    block = Block(attend)
    with responses.watched([block]):
        block(torch.randn(1, 8, 4))
    assert block.runs == 1


@torch.inference_mode()
def test_no_hook_stays_also_after_an_error(module):
    responses = module.Responses(nullcontext)

    def fail(x):
        raise RuntimeError("out of memory")

    block = Block(fail)
    with pytest.raises(RuntimeError), responses.watched([block]):
        block(torch.randn(1, 8, 4))
    assert not block._forward_hooks and not block._forward_pre_hooks
    assert not responses.runs_again


def test_changes_are_enlarged_to_half_of_each_row_and_rows_without_one_stay(module):
    out = torch.randn(2, 8, 6)
    changes = torch.randn(2, 3, 6) * 1e-6
    changes[:, 1] = 0
    changed = module.with_changes(out, ROWS, changes)
    difference = changed - out
    torch.testing.assert_close(
        difference[:, [3, 6]].norm(dim=-1), 0.5 * out[:, [3, 6]].norm(dim=-1)
    )
    cosine = torch.cosine_similarity(difference[:, [3, 6]], changes[:, [0, 2]], dim=-1)
    torch.testing.assert_close(cosine, torch.ones(2, 2))
    difference[:, [3, 6]] = 0
    assert not difference.any()
