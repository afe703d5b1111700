"""Qwen-Image 2.1, which no host under test has: a stand-in that attends as its class does.

Segments of text and references in causal order, one call for each whose keys end with it, and the
picture last; from the second call on the picture alone, before which a cache puts the others' keys.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

RADIUS, HEADS, DEPTH, TEXT = 2, 2, 16, 9
SIZE = (5, 4)
WIDTH = HEADS * DEPTH


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, attn_fn: Any) -> Tensor:
        return x + self.out(attn_fn(*self.qkv(x).chunk(3, -1)))


Block.__name__ = "QwenImage21TransformerBlock"
Block.__module__ = "comfy.ldm.qwen_image21.model"


class QwenImage21Transformer2DModel(nn.Module):
    """Blocks that are given their attention as a function, positional like all they are given."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.img_in, self.txt_in = nn.Linear(64, WIDTH), nn.Linear(64, WIDTH)
        self.transformer_blocks = nn.ModuleList([Block(), Block()])
        self.proj_out = nn.Linear(WIDTH, 64)
        self.cache: list[Tensor] | None = None

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        ref_latents: Any = None,
        transformer_options: Any = None,
        **_: Any,
    ) -> Tensor:
        parts = [self.txt_in(context)]
        parts += [self.img_in(ref.flatten(2).transpose(1, 2)) for ref in ref_latents or ()]
        parts += [self.img_in(x.flatten(2).transpose(1, 2))]
        ends = torch.tensor([part.shape[1] for part in parts]).cumsum(0).tolist()
        hidden, prefix = torch.cat(parts, 1), ends[-2] if len(ends) > 1 else 0
        transformer_options["block_type"] = "single"
        cached, kept = self.cache, []
        hidden = hidden[:, prefix:] if cached else hidden
        for index, block in enumerate(self.transformer_blocks):
            transformer_options["block_index"] = index
            before = cached[index] if cached else None

            def attend(q: Tensor, k: Tensor, v: Tensor, before: Any = before) -> Tensor:
                if before is not None:
                    k, v = (torch.cat(pair, 1) for pair in zip(before, (k, v), strict=True))
                    return host_attention(q, k, v, None, transformer_options)
                kept.append((k[:, :prefix], v[:, :prefix]))
                outs = []
                for start, end in zip([0, *ends[:-1]], ends, strict=True):
                    causal = torch.ones(end - start, end, dtype=torch.bool).tril(start)
                    mask = causal if start == 0 else None
                    outs.append(
                        host_attention(
                            q[:, start:end], k[:, :end], v[:, :end], mask, transformer_options
                        )
                    )
                return torch.cat(outs, 1)

            hidden = block(hidden, attend)
        self.cache = self.cache or kept
        out = self.proj_out(hidden[:, -ends[-1] + prefix :])
        return out.transpose(1, 2).unflatten(2, x.shape[-2:])


QwenImage21Transformer2DModel.__module__ = "comfy.ldm.qwen_image21.model"


def host_attention(q: Tensor, k: Tensor, v: Tensor, mask: Any, options: Any) -> Tensor:
    from comfy.ldm.modules.attention import optimized_attention

    return optimized_attention(q, k, v, HEADS, mask=mask, transformer_options=options)


@pytest.fixture
def model(host: Any) -> Any:
    import comfy.latent_formats
    import comfy.model_patcher
    import comfy.supported_models

    from ..controlnet_fixtures import fill

    config = comfy.supported_models.Flux(
        {"image_model": "flux", "disable_unet_model_creation": True}
    )
    config.latent_format = comfy.latent_formats.Flux2()
    config.set_inference_dtype(torch.float32, None)
    made = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.FLOW)
    made.diffusion_model = fill(QwenImage21Transformer2DModel(), seed=2)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(made, load_device=cpu, offload_device=cpu)


def called(model: Any, options: Any, **changes: Any) -> Tensor:
    """Call the model twice, the second time with a cache, and return both results."""
    random = torch.Generator().manual_seed(4)
    latent = torch.randn(1, 64, *SIZE, generator=random)
    text = torch.randn(1, TEXT, 64, generator=random)
    # As large as the picture: their calls have as many queries.
    references = [torch.randn(1, 64, *SIZE, generator=random)]
    network = model.model.diffusion_model
    network.cache = None
    given = {"x": latent, "c_crossattn": text, "ref_latents": references, **changes}
    given |= {"t": torch.tensor([0.5]), "transformer_options": options}
    with torch.inference_mode():
        return torch.stack([model.model.apply_model(**given) for _ in range(2)])


def options_of(model: Any, product: Any) -> tuple[Any, Any]:
    report = product("comfyui.core.report").RunReport()
    key = product("comfyui.core.patch").REPORT_KEY
    return {**model.model_options["transformer_options"], key: report}, report


@pytest.mark.parametrize("text", [TEXT, 20])
def test_the_picture_alone_is_local_and_a_window_over_it_changes_nothing(
    text, model, nodes, product
):
    given = {"c_crossattn": torch.randn(1, text, 64, generator=torch.Generator().manual_seed(1))}
    full = called(model, {}, **given)
    wide = nodes.CLEARAttention(model, 64)
    options, report = options_of(wide, product)
    found = called(wide, options, **given)
    assert (found - full).abs().max() <= 3e-6 * full.abs().max()
    # Two blocks, twice: once with all queries of the segment, once with keys from the cache.
    assert [
        (path.layout.text, path.layout.extra, calls) for path, calls in report.calls.items()
    ] == [(text + 20, 0, 4)]
    assert not report.missed
    small = nodes.CLEARAttention(model, RADIUS)
    local = called(small, options_of(small, product)[0], **given)
    assert (local - full).abs().max() > 1e-3 * full.abs().max()


def test_dense_blocks_are_those_that_the_host_names(model, nodes, product):
    full = called(model, {})
    dense = nodes.CLEARAttention(model, RADIUS, dense_blocks="joint 0-1")
    options, report = options_of(dense, product)
    assert torch.equal(called(dense, options), full)
    assert {path.why for path in report.calls} == {
        "block joint 0 is kept dense",
        "block joint 1 is kept dense",
    }
