"""ControlNets of other families: Qwen-Image's, and Z-Image's, which lie in a model's patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ..controlnet_fixtures import fill
from ..families.zoo import ENTRIES, MIDDLE, NEW
from ..families.zoo_models import COLUMNS, ROWS, conditioning, host_version, latent, sampled

RADIUS = 2
PADDED = 64  # what the grid is filled up to
QWEN, Z_IMAGE = ENTRIES["qwen_image"], ENTRIES["z_image"]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Compare two samples in float32."""
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


QWEN_NETS = ["instantx", *(["fun"] if host_version() >= NEW else [])]


def qwen_net(kind: str) -> Any:
    """Make a narrow CONTROL_NET of Qwen-Image, as the host's loaders do."""
    import comfy.controlnet
    import comfy.ldm.qwen_image.controlnet as nets
    import comfy.ops

    sizes = {key: QWEN.dimensions[key] for key in QWEN.dimensions.keys() - {"image_model"}}
    given = dict(dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    host, network = comfy.controlnet.ControlNet, None
    if kind == "instantx":
        network = nets.QwenImageControlNetModel(**sizes, **given)
    else:
        host = comfy.controlnet.QwenFunControlNet
        heads, depth = sizes["num_attention_heads"], 128
        network = nets.QwenImageFunControlNetModel(
            inner_dim=heads * depth,
            num_attention_heads=heads,
            attention_head_dim=depth,
            num_control_blocks=2,
            injection_layers=(0, 1),
            **given,
        )
    cpu = torch.device("cpu")
    return host(fill(network, seed=4), compression_ratio=1, load_device=cpu, extra_conds=[])


def with_net(net: Any, entry: Any, model: Any, lines: Any = None) -> torch.Tensor:
    """Sample with a ControlNet that is shown noise."""
    noise = latent(entry)
    net = net.copy().set_cond_hint(torch.randn(noise.shape, generator=torch.Generator()), 1.0)
    return sampled(model, noise, conditioning(entry, 5, control=net, control_apply_to_uncond=True))


@pytest.mark.parametrize("kind", QWEN_NETS)
def test_a_net_of_qwen_image_attends_locally(kind, host, zoo_model, nodes, lines):
    model, net = zoo_model("qwen_image"), qwen_net(kind)
    full = with_net(net, QWEN, model)
    close(with_net(nodes.CLEARControlNet(net, 64), QWEN, model), full)
    of_net = [line for line in lines() if line.startswith("ControlNet")]
    assert of_net
    assert all("radius 64" in line for line in of_net)
    local = with_net(nodes.CLEARControlNet(net, RADIUS), QWEN, model)
    assert (local - full).abs().max() > 1e-4 * full.abs().max()


class ZImageControl(nn.Module):
    """What hosts without Z-Image's ControlNets get in their place: the same blocks and names."""

    def __init__(self) -> None:
        import comfy.ops
        from comfy.ldm.lumina.model import JointTransformerBlock

        super().__init__()
        width, heads = Z_IMAGE.dimensions["dim"], Z_IMAGE.dimensions["n_heads"]
        given = dict(operations=comfy.ops.disable_weight_init, dtype=torch.float32, device=None)

        def block(index: int) -> nn.Module:
            return JointTransformerBlock(
                *(index, width, heads, heads, 256, 8 / 3, 1e-5, True, True),
                z_image_modulation=True,
                operation_settings=given,
            )

        self.control_noise_refiner = nn.ModuleList([block(0)])
        self.control_layers = nn.ModuleList([block(0), block(1)])

    def forward(self, x: torch.Tensor, positions: torch.Tensor, vector: torch.Tensor) -> Any:
        for block in (*self.control_noise_refiner, *self.control_layers):
            x = block(x, None, positions[:, : x.shape[1]], vector)
        return x


ZImageControl.__module__ = "comfy.ldm.lumina.controlnet"
ZImageControl.__name__ = "ZImage_Control"


class ControlPatch:
    """A patch as the host's for Z-Image: it adds to the picture's tokens between the blocks."""

    def __init__(self, network: nn.Module) -> None:
        import comfy.model_patcher

        cpu = torch.device("cpu")
        self.patcher = comfy.model_patcher.ModelPatcher(network, cpu, cpu)

    def __call__(self, given: dict[str, Any]) -> dict[str, Any]:
        image = given["img"][:, : ROWS * COLUMNS]  # without what fills it up
        image += self.patcher.model(image.clone(), given["pe"], given["vec"])
        return {}

    def models(self) -> list[Any]:
        return [self.patcher]


@pytest.fixture
def patched_blocks(zoo_model):
    """Run the patches between a Z-Image's blocks, where the host is too old to do it."""
    if host_version() >= MIDDLE:
        yield
        return

    def run_patches(_: nn.Module, args: Any, kwargs: Any, out: torch.Tensor) -> None:
        x, _, positions, vector = args
        text = x.shape[1] - PADDED
        for patch in kwargs["transformer_options"].get("patches", {}).get("double_block", ()):
            given = {"img": out[:, text:], "pe": positions[:, text:], "vec": vector}
            patch(given)

    layers = zoo_model("z_image").model.diffusion_model.layers
    hooks = [layer.register_forward_hook(run_patches, with_kwargs=True) for layer in layers]
    yield
    for hook in hooks:
        hook.remove()


def test_a_net_in_a_models_patches_takes_the_models_window(
    host, zoo_model, patched_blocks, nodes, lines
):
    patch = ControlPatch(fill(ZImageControl(), seed=6))
    plain = zoo_model("z_image")
    model = plain.clone()
    model.set_model_double_block_patch(patch)
    noise, words = latent(Z_IMAGE), conditioning(Z_IMAGE, 5)
    full = sampled(model, noise, words)
    assert (full - sampled(plain, noise, words)).abs().max() > 1e-3
    close(sampled(nodes.CLEARAttention(model, 64), noise, words), full)
    of_net = [line for line in lines() if line.startswith("ControlNet: ")]
    assert len(of_net) == 1
    assert "radius 64, 0 text + 7 x 6 image tokens, 100.0 % of the pairs" in of_net[0]
    assert "6 attention calls" in of_net[0]  # three blocks, behind each of the model's two
    local = sampled(nodes.CLEARAttention(model, RADIUS), noise, words)
    hidden = nodes.CLEARAttention(plain, RADIUS)
    hidden.set_model_double_block_patch(lambda given: patch(given))
    assert not torch.equal(local, sampled(hidden, noise, words))  # there the net attends in full
    assert torch.equal(full, sampled(model, noise, words))
