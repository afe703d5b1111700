"""A whole sampling step in ComfyUI, full attention against CLEAR, on narrow models of families.

    python3 benchmarks/cpu/families.py

Z-Image, Qwen-Image and FLUX.2 in the host's own classes, random weights, with the blocks, heads,
MLPs and text of the published models but for their number and width. Both ways are checked before
they are timed, and timed in turns.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cpu import host as flux
from tools.environment import reexec_in_venv

RADIUS = 16
EDGES_PX = (1024, 2048, 4096)
CHECKED_PX = 512
HEADS, HEAD_DIM = 2, 128
WIDTH = HEADS * HEAD_DIM
TEXT_WIDTH = 64


@dataclass(frozen=True)
class Shape:
    """A narrow model.

    Attributes:
        title: Of its family.
        config: Class in the host's ``supported_models``.
        network: Arguments of the host's network.
        channels: Of a latent.
        latent_px: Edge of a latent pixel in pixels.
        frames: Whether latents have an axis for frames.
        text: Tokens of the text.
        blocks: What it has of them, in words.
    """

    title: str
    config: str
    network: Mapping[str, Any]
    channels: int
    latent_px: int
    frames: bool
    text: int
    blocks: str


SHAPES = (
    Shape(
        title="Z-Image",
        config="ZImage",
        network=dict(
            image_model="lumina2",
            patch_size=2,
            in_channels=16,
            dim=WIDTH,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=HEADS,
            n_kv_heads=HEADS,
            axes_dims=[32, 48, 48],
            axes_lens=[1536, 512, 512],
            rope_theta=256.0,
            ffn_dim_multiplier=8 / 3,
            qk_norm=True,
            cap_feat_dim=TEXT_WIDTH,
            z_image_modulation=True,
            time_scale=1000.0,
            pad_tokens_multiple=32,
        ),
        channels=16,
        latent_px=8,
        frames=False,
        text=128,
        blocks="1 refiner, 1 joint",
    ),
    Shape(
        title="Qwen-Image",
        config="QwenImage",
        network=dict(
            image_model="qwen_image",
            in_channels=64,
            num_layers=2,
            num_attention_heads=HEADS,
            joint_attention_dim=TEXT_WIDTH,
        ),
        channels=16,
        latent_px=8,
        frames=True,
        text=256,
        blocks="2 joint",
    ),
    Shape(
        title="FLUX.2",
        config="Flux2",
        network=dict(
            image_model="flux2",
            in_channels=128,
            out_channels=128,
            patch_size=1,
            vec_in_dim=None,
            context_in_dim=TEXT_WIDTH,
            hidden_size=WIDTH,
            num_heads=HEADS,
            depth=1,
            depth_single_blocks=1,
            mlp_ratio=3.0,
            axes_dim=[32] * 4,
            theta=2000,
            qkv_bias=False,
            guidance_embed=False,
            global_modulation=True,
            mlp_silu_act=True,
            ops_bias=False,
            default_ref_method="index",
            ref_index_scale=10.0,
            txt_ids_dims=[3],
        ),
        channels=128,
        latent_px=16,
        frames=False,
        text=512,
        blocks="1 double, 1 single",
    ),
)


def main() -> None:
    options = flux.arguments(__doc__, EDGES_PX, rounds=1).parse_args()
    host = reexec_in_venv()
    flux.import_host(host, options.cpu, options.threads)
    from benchmarks.results_file import write

    write("families", report(host, options.edges, options.rounds))


def report(host: Path, edges: list[int], rounds: int) -> str:
    """Return one table for all models as Markdown."""
    from tools.host import Host

    lines = [
        f"ComfyUI {Host(host).version}; {HEADS} heads x {HEAD_DIM}, random weights, r = {RADIUS}. "
        "Seconds per sampling step. The published models are 12 to 15 times as wide, so that "
        "attention is a smaller share of their step at the same size, and the gain a smaller one.",
        "",
        f"| model | pixels | full | CLEAR, r = {RADIUS} | faster | pairs computed |",
        "|---|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        full, clear = models(shape)
        check(shape, clear)
        for edge in edges:
            timed = row(shape, full, clear, edge, rounds)
            lines.append(f"| {shape.title} ({shape.blocks}) {timed.markdown()}")
    return "\n".join(lines)


def models(shape: Shape) -> tuple[Any, Any]:
    """Return a model with full attention, and with CLEAR."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import torch
    from comfy.ldm.flux.model import FluxParams

    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings

    network = dict(shape.network)
    if "txt_ids_dims" not in (field.name for field in dataclasses.fields(FluxParams)):
        network.pop("txt_ids_dims", None)  # older hosts know it from the model
    config = getattr(comfy.supported_models, shape.config)(network)
    config.unet_config = network  # without the defaults for models of real width
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    random = torch.Generator().manual_seed(0)
    for weight in model.diffusion_model.parameters():
        wide = weight[0].numel() if weight.ndim > 1 else 100
        weight.data = torch.randn(weight.shape, generator=random) / wide**0.5
    device = comfy.model_management.get_torch_device()
    full = comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))
    return full, with_window(full, WindowSettings(RADIUS))


def check(shape: Shape, clear: Any) -> None:
    """Refuse to time a result that differs from the reference backend's."""
    import torch

    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings

    fast, _ = sample(shape, clear, CHECKED_PX, steps=1)
    by_definition = with_window(clear, WindowSettings(RADIUS, backend="reference"))
    exact, _ = sample(shape, by_definition, CHECKED_PX, steps=1)
    size = float(exact.abs().max())
    torch.testing.assert_close(fast, exact, atol=flux.TOLERANCE * size, rtol=flux.TOLERANCE)


def row(shape: Shape, full: Any, clear: Any, edge: int, rounds: int) -> flux.Row:
    """Time one size, in turns."""
    best = flux.in_turns(
        {"full": full, "clear": clear}, lambda model: sample(shape, model, edge, steps=2)[1], rounds
    )
    print(f"{shape.title}, {edge} x {edge} done", file=sys.stderr)
    return flux.Row(edge, best["full"], best["clear"], flux.share(edge, shape.text, RADIUS))


def sample(shape: Shape, model: Any, edge: int, steps: int) -> tuple[Any, list[float]]:
    """Run the host's sampler and return the latent and when each step ended."""
    import torch

    random = torch.Generator().manual_seed(0)
    side = edge // shape.latent_px
    frames = (1,) if shape.frames else ()
    noise = torch.randn(1, shape.channels, *frames, side, side, generator=random)
    text = torch.randn(1, shape.text, TEXT_WIDTH, generator=random)
    return flux.run_sampler(model, noise, [[text, {"pooled_output": None}]], steps)


if __name__ == "__main__":
    main()
