"""The memory that a device has for a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """The memory of a device, in bytes.

    Attributes:
        available: What the host could free for the model.
        weights: Of the model.
        decoding: What the VAE needs to decode one whole picture.
        reserved: What the host will set aside for a step, by its own estimate.
        streams: Whether weights can wait elsewhere until they are needed.
    """

    available: int
    weights: int
    decoding: int
    reserved: int
    streams: bool = True

    @property
    def room(self) -> int:
        """What is left for a step at best."""
        return self.available if self.streams else self.available - self.weights
