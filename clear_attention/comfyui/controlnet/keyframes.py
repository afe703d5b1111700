"""Advanced-ControlNet's masks, keyframes and weights: refused, as they would have no effect.

Its nodes hand them only to nets that have its marks, and drop them in silence for all others. So
the net has the marks, and whatever comes by them is an error that the user can act on.
"""

from __future__ import annotations

from typing import NoReturn

REFUSED = {
    "latent_keyframe_override": "latent keyframes",
    "weights_override": "weights",
}
"""What it sets on a net -> what users call it."""


class RefusesKeyframes:
    """A net to which Advanced-ControlNet's *Apply* nodes can give nothing without a word."""

    # The marks: what theirs read of a net before they hand anything over.
    sub_idxs = None
    allow_condhint_latents = False
    require_vae = False
    postpone_condhint_latents_check = False

    def __setattr__(self, name: str, value: object) -> None:
        if name in REFUSED and value is not None:
            _refuse(REFUSED[name])
        super().__setattr__(name, value)

    def disarm(self) -> None:
        """Take note that a node of theirs applies the net, which needs nothing."""

    def verify_all_weights(self, throw_error: bool = True) -> None:
        """Accept that there are none."""

    def set_timestep_keyframes(self, keyframes: object) -> None:
        """Refuse keyframes."""
        if keyframes is not None:
            _refuse("timestep keyframes")

    def set_cond_hint_mask(self, mask: object) -> None:
        """Refuse a mask."""
        if mask is not None:
            _refuse("a mask")


def _refuse(what: str) -> NoReturn:
    raise ValueError(
        "CLEAR ControlNet must be applied without Advanced-ControlNet's masks, keyframes and "
        f"weights, got {what}: it would have no effect. Disconnect it, or remove CLEAR ControlNet."
    )
