"""Fixtures: narrow ControlNets built from the host's classes, and what they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .sd3_fixtures import SD3_MODELS, SHARED, TEXT_WIDTH

# A FLUX ControlNet -> its layout. Wide as the golden model "b".
FLUX_NETS: dict[str, dict[str, Any]] = {
    "instantx": dict(latent_input=True, depth=2, depth_single_blocks=1),
    "union": dict(latent_input=True, depth=1, depth_single_blocks=1, num_union_modes=10),
    "xlabs": dict(latent_input=False, depth=2, depth_single_blocks=0),
    "mistoline": dict(latent_input=False, depth=1, depth_single_blocks=1, mistoline=True),
}
SD3_NETS = ("3-medium", "3.5-medium")


def fill(network: nn.Module, seed: int) -> nn.Module:
    """Give every weight a random value, so that all of them have an effect."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in (*network.named_parameters(), *network.named_buffers()):
        if "norm" in name:
            values = 1 + 0.1 * torch.randn(weight.shape, generator=generator)
        else:
            wide = weight[0].numel() if weight.ndim > 1 else 100
            values = torch.randn(weight.shape, generator=generator) / wide**0.5
        weight.data.copy_(values)
    return network.eval().requires_grad_(False)


def flux_net(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    import dataclasses

    import comfy.ldm.flux.model
    import comfy.ops
    from comfy.ldm.flux.controlnet import ControlNetFlux

    known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
    network = ControlNetFlux(
        in_channels=16,
        out_channels=16,
        hidden_size=128,
        num_heads=1,
        vec_in_dim=32,
        context_in_dim=64,
        mlp_ratio=1.0,
        axes_dim=[16, 56, 56],
        theta=10000,
        patch_size=2,
        qkv_bias=True,
        guidance_embed=True,
        **({"txt_ids_dims": []} if "txt_ids_dims" in known else {}),
        **FLUX_NETS[name],
        dtype=dtype,
        operations=comfy.ops.disable_weight_init,
    )
    return fill(network, seed=len(name))


def sd3_net(name: str) -> nn.Module:
    import comfy.cldm.mmdit
    import comfy.ops

    sizes = SD3_MODELS[name]
    text = {"in_features": TEXT_WIDTH, "out_features": 64 * sizes["depth"]}
    network = comfy.cldm.mmdit.ControlNet(
        **SHARED,
        **sizes,
        num_blocks=sizes["depth"],
        context_embedder_config={"target": "torch.nn.Linear", "params": text},
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    return fill(network, seed=3)


@pytest.fixture(scope="session")
def make_control_net(host: Any) -> Callable[..., Any]:
    """Make a fresh CONTROL_NET as the host's loader does: ``make_control_net("union")``."""
    from comfy.controlnet import ControlNet

    def make(name: str, dtype: torch.dtype = torch.float32) -> Any:
        network = sd3_net(name) if name in SD3_NETS else flux_net(name, dtype)
        in_latents = name in SD3_NETS or FLUX_NETS[name]["latent_input"]
        return ControlNet(
            network,
            compression_ratio=1 if in_latents else 8,
            load_device=torch.device("cpu"),
            extra_conds=["y", "guidance"] if name in FLUX_NETS else ["y"],
        )

    return make


def hint_for(name: str, size: tuple[int, int], seed: int = 5) -> Tensor:
    """Return what a net is shown, as large as it wants it for a latent of this size."""
    draw = torch.Generator().manual_seed(seed)
    height, width = size
    if name in SD3_NETS or FLUX_NETS[name]["latent_input"]:
        return torch.randn(1, 16, height, width, generator=draw)
    return torch.rand(1, 3, 8 * height, 8 * width, generator=draw)


def call_of(name: str, size: tuple[int, int], text: int = 24, batch: int = 1) -> dict[str, Any]:
    """Return the arguments of `residuals`."""
    draw = torch.Generator().manual_seed(7)
    sd3 = name in SD3_NETS
    cond = {
        "c_crossattn": torch.randn(batch, text, TEXT_WIDTH if sd3 else 64, generator=draw),
        "y": torch.randn(batch, 32, generator=draw),
    }
    if not sd3:
        cond["guidance"] = torch.full((batch,), 3.5)
    return dict(
        x=torch.randn(batch, 16, *size, generator=draw), t=torch.full((batch,), 0.7), cond=cond
    )


@pytest.fixture
def residuals(host: Any, flux_model: Any, sd3_model: Any) -> Callable[..., Any]:
    """Ask a net once, as the sampler does, between its `pre_run` and `cleanup`."""

    def ask(
        net: Any, x: Tensor, t: Tensor, cond: Any, model: Any = None, options: Any = None
    ) -> Any:
        if model is None:
            model = flux_model("b") if "guidance" in cond else sd3_model("3-medium")
        options = options or model.model_options.get("transformer_options", {})
        model.patch_model()
        try:
            with torch.inference_mode():
                net.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
                out = net.get_control(x, t, cond, 1, options)
        finally:
            model.unpatch_model()
        net.cleanup()
        return {key: list(value) for key, value in out.items() if value}

    return ask


def flat(control: Any) -> list[Tensor]:
    """List all residuals."""
    return [tensor for key in sorted(control) for tensor in control[key]]


def assert_same(a: Any, b: Any) -> None:
    """Assert that residuals are equal to the bit."""
    assert [key for key in a if a[key]] == [key for key in b if b[key]]
    assert len(flat(a)) == len(flat(b)) > 0
    for one, other in zip(flat(a), flat(b), strict=True):
        assert torch.equal(one, other)
