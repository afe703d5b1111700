"""What travels to workers with each call."""

from __future__ import annotations

import pickle
import uuid

import pytest
import torch


@pytest.fixture
def messages(product):
    return product("comfyui.parallel.cluster.messages")


def test_of_the_options_only_what_means_the_same_everywhere_travels(messages):
    options = {
        "sigmas": torch.ones(2),
        "uuids": [uuid.uuid4()],
        "cond_or_uncond": [0, 1],
        "override": len,
        "patches": {"a": [object()]},
        "settings": object(),
    }
    assert set(messages.plain_part(options)) == {"sigmas", "uuids", "cond_or_uncond"}


def test_a_tensor_that_is_there_twice_travels_once(messages):
    tensor = torch.randn(1000)
    sent = messages.packed({"a": [tensor, tensor], "b": (tensor, None, 3)})
    assert sent["a"][0] is sent["a"][1] is sent["b"][0]
    assert len(pickle.dumps(sent)) < 2 * len(pickle.dumps(tensor))
    assert torch.equal(sent["a"][0], tensor)


def test_something_that_has_no_meaning_elsewhere_is_refused(messages):
    with pytest.raises(ValueError, match="cannot send a function to other machines"):
        messages.packed({"a": [lambda: 1]})
