"""What CLEAR Distil cannot do with some models of the zoo, and how it says so."""

from __future__ import annotations

from dataclasses import dataclass

from .zoo import NEW, Version


@dataclass(frozen=True)
class Limit:
    """Why a model cannot be distilled.

    Attributes:
        sentence: A part of what the node says.
        note: The same for the page of models.
        since: The first host with which it is so.
    """

    sentence: str
    note: str
    since: Version = (0, 0, 0)


MORE = Limit(
    "A prompt must be one text embedding and at most one pooled vector",
    "Not *Distil*: its prompts are more than one text embedding and one pooled vector",
)
FUSED = Limit(
    "normalises and rotates",
    "Not *Distil* from ComfyUI 0.33 on: a fused operation there has no gradient",
    NEW,
)
UNTRAINABLE = {
    "hunyuan_image": MORE,
    "hidream": MORE,
    "hidream_o1": MORE,
    "cosmos_predict2": Limit(
        "must be a rectified flow",
        "Not *Distil*: it is no rectified flow. Anima is one, and learns up to ComfyUI 0.19",
    ),
    "anima": FUSED,
    "joy_image": FUSED,
}
