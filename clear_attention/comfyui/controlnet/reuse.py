"""Reuse a ControlNet's residuals between steps: cache keys, and when reuse is unsafe."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.calls.shared_nets import Residuals

Control = Residuals
"""Residuals of a model's blocks, as the host names them."""

ASKED_TWICE = (
    "the same conditioning is asked for more than once at a noise level, as tiles, context windows "
    "and samplers such as heun do"
)
SHOWN_ANEW = (
    "another node has changed the ControlNet's picture between steps, as tiles that move do "
    "(SpotDiffusion)"
)
UNKNOWN = "this ComfyUI does not tell for which conditioning it asks"


class Pace:
    """The residuals of one sampling run.

    A step is a noise level other than the one before. Each conditioning has residuals of its own;
    where it cannot be told which ones a call wants, none are reused in the rest of the run.

    Attributes:
        every: Residuals are computed on the first of so many steps.
        reused: Calls that were answered with what an earlier step had computed.
        why_not: Why nothing is reused, empty if it is.
    """

    def __init__(self, every: int) -> None:
        self.every, self.reused, self.why_not = every, 0, ""
        self._level: float | None = None
        self._step = -1
        self._kept: dict[Hashable, tuple[Control, Tensor | None]] = {}
        self._asked: set[Hashable] = set()
        self._end: object = None

    def recall(
        self, key: Hashable | None, level: float, hint: Tensor | None = None
    ) -> Control | None:
        """Return what was kept for a call, or None if it must be computed.

        Args:
            key: For whom, None if that is not known.
            level: The noise level.
            hint: What the net holds to be shown, None before its first call.
        """
        if self.every == 1 or self.why_not:
            return None
        if level != self._level:
            self._level, self._step = level, self._step + 1
            self._asked.clear()
            if self._step % self.every == 0:
                self._kept.clear()
        if key is None or key in self._asked:
            self._kept.clear()
            self.why_not = UNKNOWN if key is None else ASKED_TWICE
            return None
        self._asked.add(key)
        kept, shown = self._kept.get(key, (None, None))
        if kept is not None and not _same_picture(shown, hint):
            self._kept.clear()
            self.why_not = SHOWN_ANEW
            return None
        self.reused += kept is not None
        return kept

    def end_with(self, run: object) -> None:
        """Let go of what is kept when something of the run's is gone.

        The host tells a ControlNet of the end of a run, but not of one that was interrupted, and
        residuals are large.
        """
        kept = self._kept
        if self.every > 1 and self._end is None:
            # Ours alone, where `weakref.finalize` would hold what is kept as long as `run` lives.
            self._end = weakref.ref(run, lambda _: kept.clear())

    def keep(self, key: Hashable | None, control: Control, hint: Tensor | None = None) -> None:
        """Keep what was computed for the steps to come, if there are any without computing.

        Args:
            key: For whom.
            control: The residuals.
            hint: What the net was shown.
        """
        if self.every > 1 and not self.why_not:
            self._kept[key] = control, hint


def _same_picture(shown: Tensor | None, hint: Tensor | None) -> bool:
    """Return whether residuals still belong to a net's picture.

    A picture of another size is that of another call: the host scales the original anew for each.
    """
    if shown is None or hint is None or shown is hint or shown.shape != hint.shape:
        return True
    return torch.equal(shown, hint)


def key_of(
    latent: Tensor, strength: float, transformer_options: Mapping[str, Any]
) -> Hashable | None:
    """Return for whom a call is: its conditionings, the size of its batch and its strength."""
    uuids = transformer_options.get("uuids")
    if uuids is None:
        return None
    roles = tuple(transformer_options.get("cond_or_uncond", ()))
    return tuple(uuids), roles, tuple(latent.shape), strength
