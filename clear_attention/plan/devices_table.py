"""What people read of several devices: times, traffic, and where one device would be as fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .devices import Devices, SharedCost

WORTH = 1.1
"""Times faster below which one device counts as equally fast."""

BOUND = (
    "These times are upper bounds: nothing that a device receives overlaps with what it computes. "
    "Devices count as equally fast, and each holds the whole model."
)


@dataclass(frozen=True)
class SizeOnDevices:
    """One size of picture.

    Attributes:
        name: What people call it.
        seconds: Of a step on one device.
        shared: Of a step on all; None where the picture is too small to be shared.
    """

    name: str
    seconds: float
    shared: SharedCost | None

    def row(self) -> str:
        """Return the row of the table."""
        if self.shared is None:
            return f"{self.name:28}{self.seconds:>12.3g}{'too small to share':>40}"
        faster = self.seconds / self.shared.seconds
        verdict = f"{faster:.2f}" if faster >= WORTH else "one is as fast"
        return (
            f"{self.name:28}{self.seconds:>12.3g}{self.shared.seconds:>12.3g}"
            f"{self.shared.received / 1e6:>12,.0f}{verdict:>16}"
        )


def lines_on_devices(devices: Devices, sizes: Sequence[SizeOnDevices]) -> list[str]:
    """Return the lines about several devices, none about one.

    Args:
        devices: That share the steps.
        sizes: The planned picture first.
    """
    if devices.count < 2:
        return []
    if devices.why_one:
        return [
            "",
            f"{devices.count} devices: one of them would compute everything: {devices.why_one}.",
        ]
    head = (
        f"{'one device':>12}{f'{devices.count} devices':>12}{'MB received':>12}{'times faster':>16}"
    )
    return [
        "",
        f"on {devices.count} devices with {devices.link / 1e9:g} GB/s between them: seconds per "
        "step, and what the busiest device receives in it",
        f"{'pixels':28}{head}",
        *(size.row() for size in sizes),
        BOUND,
    ]
