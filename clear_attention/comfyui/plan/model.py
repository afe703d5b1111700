"""A MODEL's dimensions, this machine's memory and speed, and the plan that follows from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from comfy.ldm.flux.math import apply_rope
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...families.family import Family
from ...families.network import Network
from ...layout import TokenLayout
from ...plan.budget import Budget
from ...plan.devices import Devices
from ...plan.machine import Found, Machine
from ...plan.report import Plan, make_plan
from ..core.job import dtype_of, job_of, network_of
from ..core.patch import settings_of
from ..core.settings import DEFAULT_RADIUS, WindowSettings
from ..families import require_family
from ..memory.blocks import MEMORY_KEY, LowMemory

KNOWN: dict[Hashable, list[Found]] = {}
"""What the micro-benchmark found, for as long as ComfyUI runs."""


def plan_model(
    model: ModelPatcher,
    size_px: tuple[int, int],
    *,
    radius: int = 0,
    pool_factor: int = 0,
    text_tokens: int = 256,
    batch: int = 1,
    steps: int = 20,
    vae: Any = None,
    devices: int = 1,
    link: float = Devices.link,
) -> Plan:
    """Plan a run of a model, measuring this machine where that was not done before.

    Args:
        model: A MODEL, left as it is.
        size_px: Height and width of the picture.
        radius: Of the window in tokens; 0 is that of the CLEAR node on the model, with all that
            the node asks for, or 16 without one.
        pool_factor: Edge of a pooled cell in tokens, used together with a radius.
        text_tokens: Length of the prompt.
        batch: Pictures in one call.
        steps: Of the run.
        vae: A VAE whose decoding is to be planned, or None for the usual one of its family.
        devices: That share each step.
        link: Bytes per second that each of them receives from the others.

    Raises:
        ValueError: The model's architecture is not supported, or the size is none.
    """
    network, settings = network_of(model), settings_of(model)
    if radius or settings.local is None:  # the node's own window
        own = WindowSettings(radius or DEFAULT_RADIUS, pool_factor)
        settings = settings.with_window(own)
    asked: LowMemory | None = model.model_options.get("transformer_options", {}).get(MEMORY_KEY)
    height, width = (math.ceil(edge / token_px(model)) for edge in size_px)
    return make_plan(
        network,
        job_of(settings, TokenLayout(text_tokens, height, width), batch),
        machine_of(model),
        _budget(model, size_px, batch, vae),
        steps=steps,
        token_px=token_px(model),
        slice_tokens=None if asked is None else asked.slice_tokens,
        devices=_devices(model, devices, link),
        title=f"{require_family(model).title}, {_blocks_text(network)}",
    )


def _devices(model: ModelPatcher, count: int, link: float) -> Devices:
    family = require_family(model)
    why = "" if family.cut else f"where {family.title} models mix tokens is not known"
    return Devices(count, link, why)


def token_px(model: ModelPatcher) -> int:
    """Return the edge of a token in pixels."""
    return require_family(model).token_px


def machine_of(model: ModelPatcher) -> Machine:
    """Return where and in which dtype a MODEL computes, with the host's own attention."""
    return Machine(
        device=model.load_device,
        dtype=dtype_of(model),
        attend=_host_attention,
        positions=_positions(model),
        rotate=apply_rope,
        check=comfy.model_management.throw_exception_if_processing_interrupted,
        known=KNOWN,
    )


def _host_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = q.shape[1]
    return comfy.ldm.modules.attention.optimized_attention(q, k, v, heads, skip_reshape=True)


def _positions(model: ModelPatcher) -> Callable[[int], Tensor] | None:
    family = require_family(model)
    if family.embedder is None:
        return None
    embedder = model.get_model_object(f"diffusion_model.{family.embedder.path}")
    axes_dim = getattr(embedder, "axes_dim", None)  # another node's may not say
    if axes_dim is None:
        return None
    axes = len(axes_dim)
    return lambda tokens: embedder(torch.zeros(1, tokens, axes, device=model.load_device))


def _budget(model: ModelPatcher, size_px: tuple[int, int], batch: int, vae: Any) -> Budget:
    device = model.load_device
    family = require_family(model).data
    height, width = (edge // family.latent_px for edge in size_px)
    channels = model.get_model_object("latent_format").latent_channels
    shape = (batch, channels, height, width)
    streams = model.offload_device != device
    return Budget(
        streams=streams,
        weights=int(model.model_size()),
        available=_available(model),
        decoding=_decoding(vae, family, shape, device),
        reserved=int(model.model.memory_required([*shape])),
    )


def _available(model: ModelPatcher) -> int:
    """Return the bytes that the host could free for this model on its device."""
    management, device = comfy.model_management, model.load_device
    free = int(management.get_free_memory(device))
    if model.offload_device == device:  # its weights are there already
        return free + int(model.model_size())
    loaded = [each for each in management.current_loaded_models if each.device == device]
    return free + sum(int(each.model_loaded_memory()) for each in loaded)


def _decoding(vae: Any, family: Family, shape: tuple[int, ...], device: torch.device) -> int:
    """Return the host's estimate for a VAE's whole decoding, one picture after the other."""
    shape = (1, *shape[1:])
    if vae is not None:
        frames = (1,) if getattr(vae, "latent_dim", 2) == 3 else ()
        return int(vae.memory_used_decode((*shape[:2], *frames, *shape[2:]), vae.vae_dtype))
    usual = [torch.bfloat16, torch.float32]
    size = comfy.model_management.vae_dtype(device, usual).itemsize
    return family.vae_values * shape[2] * shape[3] * family.latent_px**2 * size


def _blocks_text(network: Network) -> str:
    counts = [f"{each.count} {each.kind}" for each in network.attentions if each.count]
    return f"{' + '.join(counts)} attentions of {network.heads} heads x {network.head_dim}"
