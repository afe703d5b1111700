"""VAEs in the host's own classes, two for pictures and one for videos, and a smooth picture."""

from __future__ import annotations

import pytest
import torch
from narrow_vae.network import narrowed
from narrow_vae.weights import narrow_weights


@pytest.fixture(scope="module")
def vae(host):
    """A narrow VAE of the demo's latents: for what does not depend on how well it draws."""
    import comfy.sd

    from demo.codec.vae_file import vae_weights

    vae = narrowed(comfy.sd.VAE(sd=vae_weights()), narrow_weights())
    vae.throw_exception_if_invalid()
    return vae


@pytest.fixture(scope="module")
def demo_vae(host, tmp_path_factory):
    """The demo's VAE as the host's loader makes it."""
    import comfy.sd
    import comfy.utils

    from demo.codec.vae_file import write_vae_file

    path = write_vae_file(tmp_path_factory.mktemp("demo"))
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(path)))
    vae.throw_exception_if_invalid()
    return vae


def picture(height, width):
    """Draw smooth colours with a soft edge across them."""
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width)[None].expand(height, width)
    edge = torch.sigmoid((x - y) * 30)
    return torch.stack([0.2 + 0.6 * x, 0.2 + 0.6 * y * edge, 0.3 + 0.4 * edge], dim=-1)[None]


@pytest.fixture(scope="module")
def video_vae(host):
    """Wan's VAE, which Qwen-Image has too, narrow and with random weights, by the host's loader."""
    import comfy.ldm.wan.vae
    import comfy.sd

    torch.manual_seed(0)
    network = comfy.ldm.wan.vae.WanVAE(
        **dict(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[]),
        temperal_downsample=[False, True, True],
    )
    weights = {
        name: torch.ones_like(weight) if name.endswith("gamma") else 0.1 * torch.randn_like(weight)
        for name, weight in network.state_dict().items()
    }
    vae = comfy.sd.VAE(sd=weights, dtype=torch.float32)
    vae.throw_exception_if_invalid()
    return vae
