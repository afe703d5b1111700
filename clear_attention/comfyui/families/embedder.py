"""Embedder: where the host's model of a family turns positions into rotations."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any


@dataclass(frozen=True)
class Embedder:
    """Where the host's model turns position ids into rotations.

    Attributes:
        path: Of the module that does, from ids ``[B, L, axes]`` to ``[B, 1, L, D / 2, 2, 2]``. It
            may be called on a part of the sequence.
        axes: Of the ids: the one that counts rows and the one that counts columns.
        process: The method that makes ids from a picture or in a dtype, or None where they come
            from within the model's forward.
        frames: Whether that method takes pictures with an axis of frames.
        exact: Whether the host counts ids exactly, whatever its dtype.
        by_ids: Whether the module takes ids. If not, it takes the tokens of the picture.
        base: Names of its attributes that the rotary base is proportional to.
    """

    path: str
    axes: tuple[int, int]
    process: str | None = None
    frames: bool = False
    exact: bool = False
    by_ids: bool = True
    base: tuple[str, ...] = ("theta",)

    def of(self, network: Any) -> Any:
        """Return the module of a network, which is not compiled.

        Raises:
            ValueError: The host has moved it.
        """
        try:
            return attrgetter(self.path)(network)
        except AttributeError as error:
            raise ValueError(
                f"CLEAR must find the positions of {type(network).__name__} at {self.path}, which "
                "this version of ComfyUI does not have. Update CLEAR, or remove its nodes."
            ) from error
