"""Build the zoo's models, and make what a sampler needs for them."""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ..hosts import HOST
from .zoo import ENTRIES, Entry, Version

ROWS, COLUMNS = 7, 6
"""The grid of the tests' pictures, in tokens."""


def host_version() -> Version:
    """Return the version of the host under test, or (99,) where there is none."""
    file = HOST / "comfyui_version.py"
    if not file.is_file():
        return (99,)
    return tuple(int(number) for number in re.findall(r"\d+", file.read_text().split("=")[1])[:3])


def present() -> list[str]:
    """List the entries that the host under test must have."""
    version = host_version()
    return [name for name, entry in ENTRIES.items() if entry.since <= version]


def methods(entry: Entry) -> list[str]:
    """List the methods for reference pictures that the host under test must have."""
    version = host_version()
    return [method for method, since in entry.references.items() if since <= version]


def randoms(seed: int) -> Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def build(name: str) -> Any:
    """Build the MODEL of an entry."""
    import comfy.model_patcher
    import comfy.supported_models

    entry = ENTRIES[name]
    dimensions = _known(entry)
    config = getattr(comfy.supported_models, entry.config)(dimensions)
    config.unet_config = dimensions  # without the defaults that a class adds for real models
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    fill(model.diffusion_model)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def _known(entry: Entry) -> dict[str, Any]:
    """Return the arguments of an entry's network that the host under test knows."""
    dimensions = dict(entry.dimensions)
    if not entry.params:
        return dimensions
    module, name = entry.params.split(":")
    params = getattr(importlib.import_module(module), name)
    known = {each.name for each in dataclasses.fields(params)} | {"image_model"}
    return {key: dimensions[key] for key in dimensions.keys() & known}


def fill(network: nn.Module) -> None:
    """Give every weight a random value, so that all of them have an effect.

    The class leaves memory as it is. What a model does not run stays so: Anima's adapter of the
    text, which is as large as the real one.
    """
    random = randoms(0)
    weights = [*network.named_parameters()]
    weights += [each for each in network.named_buffers() if each[0].endswith("pos_embed")]
    for name, weight in weights:
        if not weight.dtype.is_floating_point or name.startswith("llm_adapter."):
            continue
        values = torch.randn(weight.shape, generator=random)
        if weight.ndim > 1:
            values /= weight[0].numel() ** 0.5
        else:
            values = 0.1 * values + float("norm" in name or "scale" in name)
        weight.data = values
    network.eval().requires_grad_(False)


def latent(
    entry: Entry,
    *,
    batch: int = 1,
    frames: int = 1,
    odd: bool = False,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> Tensor:
    """Return noise for a picture of so many tokens; an odd one does not fill its last ones."""
    off = int(odd and entry.patch > 1 and entry.odd_since <= host_version())
    size = (rows * entry.patch - off, columns * entry.patch - off)
    time = (frames,) if entry.frames else ()
    return torch.randn(batch, entry.channels, *time, *size, generator=randoms(1))


def conditioning(entry: Entry, tokens: int, seed: int = 2, **values: Any) -> list[Any]:
    """Return a CONDITIONING whose text has so many tokens."""
    random = randoms(seed)
    text = torch.randn(1, tokens, 32, generator=random)
    return [[text, {"pooled_output": None, **entry.extras(tokens, random), **values}]]


def reference_values(entry: Entry, method: str) -> dict[str, Any]:
    """Return two reference pictures of different size, as values of a CONDITIONING."""
    random = randoms(5)
    pictures = [entry.reference(3, 4, random), entry.reference(5, 2, random)]
    named = {"reference_latents_method": method} if method else {}
    return {"reference_latents": pictures, **named}


def sampled(
    model: Any,
    noise: Tensor,
    positive: list[Any],
    negative: list[Any] | None = None,
    *,
    steps: int = 1,
    cfg: float = 4.0,
) -> Tensor:
    """Sample as KSampler does; without a negative prompt, the model runs once per step."""
    import comfy.sample

    with torch.inference_mode():
        return comfy.sample.sample(
            *(model, noise, steps, 1.0 if negative is None else cfg, "euler", "simple"),
            *(positive, positive if negative is None else negative, torch.zeros_like(noise)),
            disable_pbar=True,
            seed=0,
        )
