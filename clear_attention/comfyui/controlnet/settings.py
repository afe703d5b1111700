"""What CLEAR ControlNet asks for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..core.settings import Settings, WindowSettings


@dataclass(frozen=True)
class ControlSettings:
    """How a ControlNet runs; every field's default but the first changes nothing.

    Attributes:
        radius: Of the window in tokens, 0 for what the sampled model has.
        every: Residuals are computed on the first of so many steps.
        ntk_factor: On the rotary base, 0 for what the sampled model has.
        backend: "auto" or the name of a backend.
        node_id: The node that shows the report, or None.
    """

    radius: int = 0
    every: int = 1
    ntk_factor: float = 1.0
    backend: str = "auto"
    node_id: str | None = None

    def attention(self, of_model: Settings) -> Settings:
        """Return how the blocks attend when a model with these settings is sampled.

        What a model's settings say of single blocks, dense ones and learned pooling, says nothing
        of the ControlNet's.
        """
        if self.radius:
            return of_model.with_window(WindowSettings(self.radius, backend=self.backend))
        if of_model.local is None:
            return of_model
        local = of_model.local.without_blocks()
        if self.backend != "auto":
            local = dataclasses.replace(local, backend=self.backend)
        return of_model.with_window(local)
