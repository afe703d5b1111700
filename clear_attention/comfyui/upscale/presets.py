"""CLEAR Upscale's presets: how much is painted anew and how firmly shapes are held, in words."""

from __future__ import annotations

from dataclasses import dataclass

CUSTOM = "custom"


@dataclass(frozen=True)
class Preset:
    """What a preset sets, named as the node's inputs.

    Attributes:
        denoise: Strength of each stage, as text.
        guidance_strength: Of the low frequencies at a stage's first step.
        guidance_decay: How fast that falls.
    """

    denoise: str
    guidance_strength: float
    guidance_decay: float


PRESETS = {
    "keep my picture": Preset("0.3", 1.0, 0.5),
    "add detail": Preset("0.5, 0.4", 0.7, 1.0),
    "repaint": Preset("0.7, 0.5", 0.3, 1.0),
}


def preset_named(name: str, custom: Preset) -> tuple[Preset, list[str]]:
    """Return what a preset sets, and the line of the report that states it.

    Args:
        name: A key of `PRESETS`, or `CUSTOM`, which changes nothing.
        custom: What the node's own inputs say.

    Raises:
        ValueError: There is no such preset.
    """
    if name == CUSTOM:
        return custom, []
    if name not in PRESETS:
        known = ", ".join((CUSTOM, *PRESETS))
        raise ValueError(f'preset must be one of {known}, got "{name}".')
    preset = PRESETS[name]
    return preset, [
        f"preset {name}: denoise {preset.denoise}, guidance_strength {preset.guidance_strength:g}, "
        f"guidance_decay {preset.guidance_decay:g}"
    ]
