"""The size of FLUX.1 [dev] that the README's table takes, against ComfyUI's own class."""

from __future__ import annotations

import torch


def test_flux_dev_has_as_many_weights_as_the_readme_counts(host):
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    from tools import fit_table

    sizes = fit_table.FLUX_DEV
    model = Flux(
        in_channels=16,
        out_channels=16,
        vec_in_dim=768,
        context_in_dim=4096,
        hidden_size=sizes.hidden,
        mlp_ratio=sizes.mlp / sizes.hidden,
        num_heads=sizes.heads,
        depth=19,
        depth_single_blocks=38,
        axes_dim=[16, 56, 56],
        theta=10_000,
        patch_size=2,
        qkv_bias=True,
        guidance_embed=True,
        dtype=torch.bfloat16,
        device="meta",
        operations=comfy.ops.disable_weight_init,
    )
    assert sum(weight.numel() for weight in model.parameters()) == fit_table.PARAMETERS
