"""What cannot be shared is computed by one device, and the report says why."""

from __future__ import annotations

import pytest
import torch

from ..flux_runs import conditioning, window_by_hand, with_override


@pytest.fixture
def told(sample, nodes, lines):
    """Sample on two devices; return the report's lines about it, and check the picture."""

    def run(model, behind=lambda one: one, devices="cpu,cpu", **kwargs):
        expected = sample(behind(model), **kwargs)
        actual = sample(behind(nodes.CLEARParallel(model, devices)), **kwargs)
        assert torch.equal(actual, expected)
        return [line for line in lines() if line.startswith("parallel")]

    return run


def test_one_device_changes_nothing(told, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    assert told(model, devices="cpu") == [
        "parallel: one device computes everything: there is one device"
    ]
    assert len(told(model, devices="all")) == 2


def test_more_devices_than_rows(told, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    (line,) = told(model, size=(4, 4), devices="cpu,cpu,cpu")
    assert line == (
        "parallel: one device computes a call: 2 x 2 tokens must be at least 3 lines long, one "
        "band of 1 for each of 3 ranks. Use fewer devices."
    )


def test_another_node_s_attention(told, flux_model):
    (line,) = told(flux_model("b"), lambda one: with_override(one, window_by_hand(13, 10)))
    assert line.endswith("another node has its own attention in this model")


def test_another_node_s_wrapper(told, flux_model, nodes):
    from comfy.patcher_extension import WrappersMP

    def wrapped(model):
        model = model.clone()
        wrapper = lambda executor, *args, **kwargs: executor(*args, **kwargs)  # noqa: E731
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "cache", wrapper)
        return model

    (line,) = told(nodes.CLEARAttention(flux_model("b"), radius=3), wrapped)
    assert line.endswith("another node wraps each model call (cache)")


def test_another_node_s_runner(told, flux_model, nodes):
    def replaced(model):
        model = model.clone()
        own = model.get_model_object("diffusion_model.forward_orig")

        def forward_orig(*args, **kwargs):
            return own(*args, **kwargs)

        model.add_object_patch("diffusion_model.forward_orig", forward_orig)
        return model

    (line,) = told(nodes.CLEARAttention(flux_model("b"), radius=3), replaced)
    assert "another node runs the blocks" in line


def test_a_mask_of_the_prompt(told, flux_model, nodes):
    tokens = 40 + 13 * 10
    mask = {"attention_mask": torch.ones(1, tokens, tokens), "attention_mask_img_shape": (13, 10)}
    masked = conditioning(40, 2, **mask)
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    found = told(model, positive=masked, negative=masked)
    assert found == [
        "parallel: one device computes a call: the prompt comes with an attention mask"
    ]


def test_a_family_that_does_not_say_where_tokens_mix(zoo_model, nodes, lines):
    from ..families.zoo import ENTRIES
    from ..families.zoo_models import conditioning as words
    from ..families.zoo_models import latent, sampled

    entry = ENTRIES["lumina2"]
    model = nodes.CLEARParallel(nodes.CLEARAttention(zoo_model("lumina2"), radius=2), "cpu,cpu")
    sampled(model, latent(entry), words(entry, 9))
    assert any("where Lumina2 models mix tokens is not known" in line for line in lines())


@pytest.mark.parametrize(
    ("devices", "shares", "message"),
    [
        ("", "auto", "got nothing"),
        ("cuda:97", "auto", "got 'cuda:97'"),
        ("gpu", "auto", "got 'gpu'"),
        ("cpu,cpu", "2", "2 positive numbers"),
        ("cpu,cpu", "2:0", "2 positive numbers"),
        ("cpu,cpu", "two:one", "2 positive numbers"),
    ],
)
def test_wrong_devices_and_shares_are_named(devices, shares, message, flux_model, nodes):
    with pytest.raises(ValueError, match=message):
        nodes.CLEARParallel(flux_model("b"), devices, shares)


def test_a_model_of_another_kind_is_refused(nodes):
    from types import SimpleNamespace

    model = SimpleNamespace(get_model_object=lambda name: torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="CLEAR supports models of the families"):
        nodes.CLEARParallel(model, "cpu,cpu")
