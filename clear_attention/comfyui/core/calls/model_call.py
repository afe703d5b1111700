"""A model call: its grid, what the nodes ask of it, and whether it keeps full attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ....masks import Mask
from ....parallel.attention import Seat
from ...core import host
from ...families import HostFamily, plain_module, tokens_of
from ..geometry import Geometry
from ..report import RunReport
from ..settings import Block, Settings, WindowSettings

CALL_KEY = "clear_attention_call"
"""Where a model call's `ModelCall` lies in transformer_options."""

OVERRIDE_KEY = "optimized_attention_override"
"""Where the host looks for an override in transformer_options."""

RECORDER_KEY = "clear_attention_recorder"
"""Key of the optional recorder that receives each block's attention output."""

SEAT_KEY = "clear_attention_seat"
"""Where a rank's `Seat` lies in the transformer_options of a call that several ranks compute."""

Override = Callable[..., Tensor]


class OutputRecorder(Protocol):
    """Receives the attention output of each block."""

    def add(self, block: Block | None, output: Tensor) -> None:
        """Take an output, ``[B, L, H D]`` as the host's attention gives it."""
        ...


@dataclass(frozen=True, eq=False)
class ModelCall:
    """What the attention of one model call needs to know.

    Attributes:
        family: Of the model.
        settings: What the nodes ask for, as far as it holds for this call.
        geometry: The grid of this call.
        why_dense: Why the whole call keeps full attention, or None.
        previous: The override that was in the slot before, or None.
        report: Collects what happened, or None outside a sampling run.
        recorder: Is given each block's attention output, or None.
        asked: What the nodes ask for, or None where all of it holds.
        own_attention: The attention that the checkpoint brings for a block.
        attended: The block of each attention so far, None where nobody names it.
        masks: The mask that was read last, by its identity, with the host's tensor.
        seat: This rank's place, where several compute the call, or None.
    """

    family: HostFamily
    settings: Settings
    geometry: Geometry
    why_dense: str | None
    previous: Override | None
    report: RunReport | None
    recorder: OutputRecorder | None = None
    asked: Settings | None = None
    own_attention: Mapping[Block, Override] = field(default_factory=dict)
    attended: list[Block | None] = field(default_factory=list)
    masks: dict[tuple[object, ...], tuple[Tensor, Mask | None]] = field(default_factory=dict)
    seat: Seat | None = None

    @property
    def acts(self) -> bool:
        """Whether the attention of this call is anything but the host's own.

        The slot of a call that is not keeps what others have put there: hosts leave a checkpoint's
        own attention out as soon as there is any override.
        """
        asked = self.settings.proportional or self.recorder is not None or self.seat is not None
        return self.why_dense is None or asked

    @property
    def needs_block(self) -> bool:
        """Whether the attention must know which block is running."""
        asked = self.settings.local
        window = self.why_dense is None and asked is not None and asked.needs_block
        own = bool(self.own_attention)
        return self.settings.name_blocks or window or own or self.recorder is not None


class Observer(Protocol):
    """A plain function that follows each model call before it runs, without changing it."""

    def __call__(self, call: ModelCall, latent: Tensor, diffusion_model: Any, /) -> None: ...


def geometry_of_call(
    family: HostFamily,
    network: Any,
    latent: Tensor,
    arguments: Mapping[str, Any],
    text: Tensor | None = None,
) -> Geometry:
    """Return the grid of a call of a network.

    Args:
        family: Of the network.
        network: A model or a ControlNet, compiled or not.
        latent: That it is called with.
        arguments: That it is called with besides.
        text: The encoded prompt ``[B, tokens, C]`` that it is called with, or None.
    """
    module = plain_module(network)
    shape = family.latent_shape(latent, arguments)
    frames, height, width = tokens_of(shape, family.patch(module))
    references = family.reference_tokens(module, arguments)
    keys = None
    if family.sees_all and text is not None:
        keys = text.shape[1] + references + frames * height * width
    return Geometry(
        height=height,
        width=width,
        references=references,
        order=family.order(host.version()),
        pads_to=family.data.pads_to,
        frames=frames,
        cached=family.data.cached,
        keys=keys,
    )


def why_dense(
    local: WindowSettings | None,
    geometry: Geometry,
    sigma: Tensor,
    model_sampling: Any,
    declined: str | None = None,
) -> str | None:
    """Return why a whole call keeps full attention, or None.

    Args:
        local: What is asked for.
        geometry: Of the call.
        sigma: Its noise level.
        model_sampling: Of the model.
        declined: Why its family cannot take its arguments, or None.
    """
    if local is None:
        return "no window was asked for"
    if declined is not None:
        return declined
    if geometry.frames > 1:
        return f"{geometry.frames} frames, and CLEAR's window is one of single pictures so far"
    tokens = geometry.image
    if tokens < local.min_tokens:
        return f"{tokens} image tokens are fewer than min_tokens {local.min_tokens}"
    if local.start_percent <= 0.0 and local.end_percent >= 1.0:
        return None
    start = model_sampling.percent_to_sigma(local.start_percent)
    end = model_sampling.percent_to_sigma(local.end_percent)
    if end <= float(sigma.max()) <= start:
        return None
    return f"outside {local.start_percent:g} to {local.end_percent:g} of the schedule"
