"""Models whose attention CLEAR cannot reach, and why: told by the names of their classes."""

from __future__ import annotations

from torch import nn

OWN_PATH = "their attention does not go through ComfyUI's hook for it"
TIME = "CLEAR's window is one of pictures, and has no axis of time so far"

REASONS: dict[str, str] = {
    "ErnieImageModel": "ComfyUI hands their attention no options to set another one with",
    "HunYuanDiT": OWN_PATH,
    "HunYuanDiTPlain": OWN_PATH,
    "PixArtMS": OWN_PATH,
    "PixArt": OWN_PATH,
    "NaDiT": "they compute in windows of their own already",
    "LTXVModel": TIME,
    "LTXAVModel": TIME,
    "MiniMaxH3Model": TIME,
    "CogVideoXTransformer3DModel": TIME,
    "AsymmDiTJoint": TIME,
    "GeneralDIT": TIME,
    "NextDiTPixelSpace": "they paint pixels in blocks that CLEAR does not know",
    "UNetModel": "UNets (SD1.5, SDXL) spend most of their time in convolutions",
}
"""Class of the diffusion model, or one that it derives from -> why it is refused."""

NUNCHAKU = (
    "CLEAR cannot be combined with nunchaku models: their attention runs inside nunchaku's "
    "own engine. Load the bf16, fp8 or GGUF version of the model instead."
)


def why_unsupported(model: nn.Module) -> str | None:
    """Return why a model of no family cannot be taken, or None where nobody has looked.

    Args:
        model: A diffusion model, not compiled.
    """
    names = (one.__name__ for one in type(model).__mro__)
    return next((REASONS[name] for name in names if name in REASONS), None)


def is_nunchaku(module: nn.Module) -> bool:
    """Tell by names, without importing it; its FLUX is a wrapper around a module of its own."""
    types = [type(one) for one in (module, *module.children())]
    return any("nunchaku" in f"{one.__module__}.{one.__name__}".lower() for one in types)
