"""What people read of a model's locality: which radius each block needs, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .choose import Choice
from .chosen import chosen_lines
from .measure import Locality


@dataclass(frozen=True)
class LocalityReport:
    """The locality of a model's blocks, held against what is wanted of them.

    Attributes:
        blocks: What was measured, by the blocks' names, in the order in which they run.
        share: Share of an image token's attention that is to be kept, 0 to 1.
        radius: The radius to judge, in tokens.
        remarks: Lines on how it was measured.
        choice: A radius for each block within a budget, or None.
        seconds: What a step takes with full attention, and with that choice, or None.
    """

    blocks: Mapping[str, Locality]
    share: float
    radius: int
    remarks: tuple[str, ...] = ()
    choice: Choice[str] | None = None
    seconds: tuple[float, float] | None = None

    def radii(self) -> dict[str, int]:
        """Return the smallest radius that keeps the share, for each block."""
        return {name: found.block_radius(self.share) for name, found in self.blocks.items()}

    def too_small_for(self) -> list[str]:
        """Return the blocks in which the radius keeps less than the share."""
        return [name for name, radius in self.radii().items() if radius > self.radius]

    def table(self) -> str:
        """Return the numbers as aligned text."""
        width = max(5, *map(len, self.blocks))
        kept = f"kept at {self.radius}"
        lines = [
            f"The smallest radius that keeps {self.share:.4g} of an image token's attention, and "
            f"what radius {self.radius} keeps.",
            "Means over the heads; in brackets the head that looks farthest. Text and reference "
            "tokens are always kept.",
            *self.remarks,
            "",
            f"{'block':{width}}  {'radius':>10}  {kept:>16}  {'of the picture':>14}",
            *(self._row(name, width) for name in self.blocks),
            "",
            self._conclusion(),
            *(chosen_lines(self.choice, self.seconds) if self.choice else ()),
        ]
        return "\n".join(lines)

    def _row(self, name: str, width: int) -> str:
        found = self.blocks[name]
        kept = found.kept_at(self.radius)
        radius = f"{found.block_radius(self.share)} ({int(found.head_radii(self.share).max())})"
        share = f"{float(kept.mean()):.1%} ({float(kept.min()):.1%})"
        of_image = f"{float(found.kept_of_image_at(self.radius).mean()):.1%}"
        return f"{name:{width}}  {radius:>10}  {share:>16}  {of_image:>14}"

    def _conclusion(self) -> str:
        enough = len(self.blocks) - len(self.too_small_for())
        return (
            f"Radius {self.radius} is enough for {enough} of {len(self.blocks)} blocks, radius "
            f"{max(self.radii().values())} for all."
        )
