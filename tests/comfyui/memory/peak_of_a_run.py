"""A process of its own: by how many bytes it grows in a sampling run, and how many were expected.

    python tests/comfyui/memory/peak_of_a_run.py COMFYUI

One line of JSON for each case. Linux only, where a process's peak can be forgotten.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[3]
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TEXT, CONTEXT, RADIUS = 512, 64, 8
DEPTH = 4  # of the SD3, whose width and heads follow from it


class Case(NamedTuple):
    """One run.

    Attributes:
        model: "flux" or "sd3".
        edge: Of the picture, in pixels.
        backend: Of CLEAR's window, or "" for full attention.
        slice_tokens: Of CLEAR Low Memory, None without it.
    """

    model: str
    edge: int
    backend: str = "tiled"
    slice_tokens: int | None = None

    def __str__(self) -> str:
        sliced = (
            "whole" if self.slice_tokens is None else f"slices of {self.slice_tokens or 'auto'}"
        )
        return f"{self.model} {self.edge} {self.backend or 'full'} {sliced}"


ALL = (
    Case("flux", 768),
    Case("flux", 768, slice_tokens=512),
    Case("flux", 1024, "masked"),
    Case("flux", 768, ""),
    Case("flux", 512, "reference", 256),
    Case("flux", 1536, slice_tokens=0),  # more tokens than "auto" computes at once
    Case("sd3", 768),
    Case("sd3", 768, slice_tokens=512),
)
CASES = tuple(map(str, ALL))


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from benchmarks.cpu.host import import_host

    import_host(Path(sys.argv[1]), True, 1)
    models = {"flux": flux(), "sd3": sd3()}
    for case in ALL:
        print(json.dumps(dict(case=str(case), **measured(models[case.model], case))), flush=True)


def measured(model: Any, case: Case) -> dict[str, int | bool]:
    """Return the bytes at the peak of a run, measured and expected, and whether blocks free."""
    import comfy.ldm.flux.layers

    from clear_attention.comfyui.core.job import dtype_of, job_of, network_of
    from clear_attention.comfyui.core.patch import settings_of, with_window
    from clear_attention.comfyui.core.settings import WindowSettings
    from clear_attention.comfyui.memory.blocks import with_low_memory
    from clear_attention.layout import TokenLayout
    from clear_attention.plan.memory import memory

    if case.backend:
        model = with_window(model, WindowSettings(RADIUS, backend=case.backend))
    if case.slice_tokens is not None:
        model = with_low_memory(model, case.slice_tokens)
    job = job_of(settings_of(model), TokenLayout(TEXT, case.edge // 16, case.edge // 16), 1)
    where = (dtype_of(model), model.load_device)
    expected = memory(network_of(model), job, *where, case.slice_tokens)
    sample(model, 256)
    before = resident("VmRSS")
    CLEAR_REFS.write_text("5")  # forget the peak so far
    sample(model, case.edge)
    frees = "del qkv" in inspect.getsource(comfy.ldm.flux.layers.SingleStreamBlock)
    return dict(measured=resident("VmHWM") - before, expected=expected, frees=frees)


def sample(model: Any, edge: int) -> None:
    """Run one step of the host's sampler."""
    import comfy.sample
    import torch

    generator = torch.Generator().manual_seed(0)
    cond = torch.randn(1, TEXT, CONTEXT, generator=generator)
    pooled = torch.randn(1, 32, generator=generator)
    positive = [[cond, {"pooled_output": pooled, "guidance": 3.5}]]
    latent = torch.zeros(1, 16, edge // 8, edge // 8)
    noise = torch.randn(latent.shape, generator=generator)
    with torch.inference_mode():
        comfy.sample.sample(
            *(model, noise, 1, 1.0, "euler", "simple", positive, positive, latent),
            disable_pbar=True,
            seed=0,
        )


def flux() -> Any:
    """Return a narrow FLUX with random weights."""
    import comfy.ldm.flux.model
    import comfy.supported_models

    known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
    sizes: dict[str, Any] = dict(
        in_channels=16,
        out_channels=16,
        vec_in_dim=32,
        context_in_dim=CONTEXT,
        hidden_size=256,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        mlp_ratio=4.0,
        axes_dim=[16, 56, 56],
        theta=10000,
        patch_size=2,
        qkv_bias=True,
        guidance_embed=True,
        txt_ids_dims=[],
    )
    given = {key: sizes[key] for key in sizes.keys() & known}
    return patcher(comfy.supported_models.Flux({"image_model": "flux", **given}))


def sd3() -> Any:
    """Return a narrow SD3 with random weights."""
    import comfy.supported_models

    return patcher(
        comfy.supported_models.SD3(
            {
                "in_channels": 16,
                "patch_size": 2,
                "depth": DEPTH,
                "input_size": None,
                "adm_in_channels": 32,
                "context_embedder_config": {
                    "target": "torch.nn.Linear",
                    "params": {"in_features": CONTEXT, "out_features": 64 * DEPTH},
                },
                "num_patches": 192**2,
                "pos_embed_max_size": 192,
                "pos_embed_scaling_factor": None,
                "qk_norm": "rms",
                "x_block_self_attn_layers": [],
            }
        )
    )


def patcher(config: Any) -> Any:
    """Return a MODEL of a configuration, its weights random."""
    import comfy.model_patcher
    import torch

    config.set_inference_dtype(torch.float32, None)
    base = config.get_model({})
    generator = torch.Generator().manual_seed(0)
    for weight in base.diffusion_model.parameters():
        torch.nn.init.normal_(weight.data, std=0.02, generator=generator)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)


def resident(name: str) -> int:
    """Return a resident size of this process in bytes, by its name in Linux's status."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
