"""The host's Krea 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...families.krea2 import KREA2 as DATA
from ...families.network import Held
from .embedder import Embedder
from .family import HostBlocks, HostFamily, of_class
from .layers import Layers


def _has_method(model: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether references are looked at: only where a node says how they are placed."""
    method = arguments.get("ref_latents_method", getattr(model, "default_ref_method", None))
    return method is not None


KREA2 = HostFamily(
    data=DATA,
    matches=of_class("comfy.ldm.krea2.model", "SingleStreamDiT"),
    blocks=(
        HostBlocks(
            "joint", "blocks", block="SingleStreamBlock", feed_forward=("mlp",), held=Held(inside=2)
        ),
    ),
    embedder=Embedder("pe_embedder", axes=(1, 2), exact=True),
    references="ref_latents",
    references_if=_has_method,
    in_batch=True,
    layers=Layers(
        text=("txtfusion", "txtmlp"),
        both=("last.linear",),
        image=("first",),
        repeats={
            "layerwise_blocks": lambda model: model.txtlayers,
            "projector": lambda model: model.txtdim,
        },
    ),
)
