"""What changes a model's weights or adds to its blocks has the same effect on every device."""

from __future__ import annotations

import functools

import pytest
import torch

from ..weights.test_lora_hooks import file, hook, painted  # noqa: F401 - file is a fixture
from .conftest import relative

LIMIT = 1e-6
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
LINEAR1 = "diffusion_model.single_blocks.1.linear1.weight"


def with_lora(model):
    """Return a clone with low-rank changes of two layers."""
    model, draw, patches = model.clone(), torch.Generator().manual_seed(5), {}
    for key in (QKV, LINEAR1):
        rows, columns = model.model.state_dict()[key].shape
        down = torch.randn(2, columns, generator=draw) / columns**0.5
        patches[key] = ("diff", (0.3 * torch.randn(rows, 2, generator=draw) @ down,))
    assert set(model.add_patches(patches)) == patches.keys()
    return model


def test_a_lora_in_front_is_followed(compared, flux_model, nodes):
    model = nodes.CLEARAttention(with_lora(flux_model("b")), radius=3)
    assert compared(model, "cpu,cpu,cpu") < LIMIT


def test_a_lora_behind_is_followed(compared, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    assert compared(model, "cpu,cpu,cpu", behind=with_lora) < LIMIT


def test_a_lora_that_is_taken_off_again_is_off_on_every_device(sample, flux_model, nodes):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    several = nodes.CLEARParallel(model, "cpu,cpu")
    before = sample(several)
    changed = sample(with_lora(several))
    assert not torch.allclose(changed, before, atol=1e-2)
    assert relative(changed, sample(with_lora(model))) < LIMIT
    assert torch.equal(sample(several), before)


def test_the_model_stays_as_it_is(sample, flux_model, nodes):
    model = flux_model("b")
    bits = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    before = sample(model)
    sample(with_lora(nodes.CLEARParallel(nodes.CLEARAttention(model, radius=3), "cpu,cpu")))
    assert torch.equal(sample(model), before)
    assert all(torch.equal(bits[key], one) for key, one in model.model.state_dict().items())
    modules = [model.model.diffusion_model, *model.model.diffusion_model.modules()]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in modules)
    assert "forward_orig" not in vars(model.model.diffusion_model)
    assert not model.additional_models


@pytest.mark.parametrize("schedule", [(), ((0.4, 0.0), (1.0, 0.6))], ids=["constant", "scheduled"])
def test_hooks_of_a_prompt_are_followed(schedule, compared, flux_model, nodes, file):  # noqa: F811
    model = nodes.CLEARAttention(flux_model("b"), radius=3)

    def paint(one):
        return painted(one, hook(file, *schedule), False)

    assert compared(model, "cpu,cpu,cpu", paint=paint) < LIMIT
    assert not torch.allclose(paint(model), painted(model, None, False), atol=1e-2)


@pytest.mark.parametrize("net", ["instantx", "union"])
def test_a_controlnet_s_residuals_are_shared_out(
    net, compared, controlled, flux_model, make_control_net, nodes
):
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    one = make_control_net(net)
    assert compared(model, "cpu,cpu,cpu", paint=lambda m: controlled(m, one)) < LIMIT
    local = nodes.CLEARControlNet(one, 0)
    assert compared(model, "cpu,cpu,cpu", paint=lambda m: controlled(m, local, one)) < LIMIT


def test_a_clear_controlnet_runs_on_every_device(
    compared, controlled, flux_model, make_control_net, nodes, product, monkeypatch
):
    runs = []
    nets = product("comfyui.parallel.nets").TeamNets
    run = nets.run

    def counted(self, network, *args, **kwargs):
        runs.append(network)
        return run(self, network, *args, **kwargs)

    monkeypatch.setattr(nets, "run", counted)
    residuals, whole = product("comfyui.core.calls.shared_nets").SharedResiduals, []
    join = residuals._whole

    def joined(self, rows):
        whole.append(rows)
        return join(self, rows)

    monkeypatch.setattr(residuals, "_whole", joined)
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    first, second = (
        nodes.CLEARControlNet(make_control_net(name), radius)
        for name, radius in (("instantx", 0), ("union", 4))
    )
    paint = functools.partial(controlled, size=(21, 27))
    assert compared(model, "cpu,cpu,cpu", paint=lambda m: paint(m, first, second)) < LIMIT
    assert len(runs) == 2 * 4, "two nets in two steps of two prompts"
    assert not whole, "residuals stay where they were made"
    bare = compared(model, "cpu,cpu", paint=lambda m: paint(m, first, make_control_net("union")))
    assert bare < LIMIT
    assert whole, "another net adds to them"


def test_a_clear_controlnet_of_every_second_step_is_shared(
    compared, controlled, flux_model, make_control_net, nodes
):
    net = nodes.CLEARControlNet(make_control_net("instantx"), 3, 2)
    model = nodes.CLEARAttention(flux_model("b"), radius=3, start_percent=0.4)
    assert compared(model, paint=lambda m: controlled(m, net, steps=3)) < LIMIT
