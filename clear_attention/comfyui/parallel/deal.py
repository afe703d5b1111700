"""Deal: tiles that several devices decode ahead of the host, which asks for them in order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from .threads import Crew

AHEAD = 2
"""Tiles in main memory that wait to be blended, for each device."""


@dataclass
class Decoder:
    """A VAE's network on a device.

    Attributes:
        model: The network; some keep state while they decode.
        device: Where its weights are.
    """

    model: Any
    device: torch.device
    _free: threading.Lock = field(default_factory=threading.Lock)

    def decode(self, tile: Tensor) -> Tensor:
        """Decode latents, ``[1, C, ..., height, width]`` in the VAE's dtype; both in main memory.

        Raises:
            torch.OutOfMemoryError: The message names the device.
        """
        with self._free:
            try:
                return self.model.decode(tile.to(self.device)).cpu()
            except torch.OutOfMemoryError as error:
                raise type(error)(
                    f"CLEAR Parallel Decode: {self.device} ran out of memory with a tile of "
                    f"{' x '.join(map(str, tile.shape[2:]))} latent pixels. Choose a smaller "
                    f"tile_size. ({error})"
                ) from error


class Deal:
    """What the host takes for the VAE's network while it decodes tiles.

    A device that is done takes the next tile, so that faster ones decode more.

    Args:
        tiles: That the host will ask for, in this order.
        decoders: A thread of the crew each.
        crew: Threads.
    """

    def __init__(self, tiles: Sequence[Tensor], decoders: Sequence[Decoder], crew: Crew) -> None:
        self.missed = 0
        self.counts: Counter[torch.device] = Counter()
        self._tiles = tiles
        self._decoders = decoders
        self._crew = crew
        self._changed = threading.Condition()
        self._decoded: dict[int, Tensor] = {}
        self._begun = 0
        self._asked = 0
        self._stopped = False
        self._error: BaseException | None = None

    def __enter__(self) -> Deal:
        for thread, decoder in enumerate(self._decoders):
            self._crew.submit(thread, lambda decoder=decoder: self._work(decoder))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def __getattr__(self, name: str) -> Any:
        """Answer for anything else as the network does."""
        return getattr(self._decoders[0].model, name)

    def decode(self, tile: Tensor) -> Tensor:
        """Return a decoded tile, waiting for it.

        Args:
            tile: The next one. Another than was expected is decoded here, and so are all further.

        Raises:
            BaseException: The first error of any device.
        """
        number = self._asked
        if self._stopped or not self._is_expected(number, tile):
            self._stop()
            self.missed += 1
            return self._decoders[0].decode(tile)
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            while number not in self._decoded and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            return self._decoded.pop(number)

    def describe(self) -> str:
        """Return a line for people about who decoded what."""
        parts = [f"{count} on {device}" for device, count in self.counts.items()]
        text = f"{self.counts.total()} tiles decoded ahead, {', '.join(parts)}"
        return f"{text}; {self.missed} were not expected" if self.missed else text

    def _is_expected(self, number: int, tile: Tensor) -> bool:
        return number < len(self._tiles) and torch.equal(self._tiles[number], tile)

    def _work(self, decoder: Decoder) -> None:
        try:
            while (number := self._next()) is not None:
                comfy.model_management.throw_exception_if_processing_interrupted()
                decoded = decoder.decode(self._tiles[number])
                with self._changed:
                    self._decoded[number] = decoded
                    self.counts[decoder.device] += 1
                    self._changed.notify_all()
        except BaseException as error:  # an interrupt of the host is none of Exception's
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _next(self) -> int | None:
        """Take the number of a tile, once it is not too far ahead."""
        with self._changed:
            while not self._is_over() and self._begun >= self._asked + AHEAD * len(self._decoders):
                self._changed.wait()
            if self._is_over():
                return None
            self._begun += 1
            return self._begun - 1

    def _is_over(self) -> bool:
        return self._stopped or self._error is not None or self._begun == len(self._tiles)

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
