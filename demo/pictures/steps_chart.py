"""Draw the seconds of a step with full attention and with CLEAR, for the README.

``python3 demo/pictures/steps_chart.py`` writes the chart. The figures are those of the
committed benchmarks, of the demo's small model on two CPU cores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tools.environment import reexec_in_venv

    reexec_in_venv()

from demo.pictures.scheme import Gain, measured
from tools.drawing import BACKGROUND, LOOKS, MUTED, SEEN, UNSEEN, Box, Drawing, Shape, Text
from tools.host import ROOT

TARGET = ROOT / "docs" / "steps.svg"
WIDTH_PX, MARGIN_PX, NAMES_PX, ROW_PX, BAR_PX = 880, 24, 150, 76, 24
SIZES = {"1024 x 1024": "host", "2048 x 2048": "host", "4096 x 4096": "upscale"}
"""A size, and the benchmark that has its step."""


def drawing() -> Drawing:
    """Draw a pair of bars for each size."""
    gains = {size: measured(file, size)() for size, file in SIZES.items()}
    longest = max(gain.usual for gain in gains.values())
    height = 64 + ROW_PX * len(gains) + 34
    shapes: list[Shape] = [
        Box(0, 0, WIDTH_PX, height, BACKGROUND, 12),
        Text(MARGIN_PX, 42, "Seconds of one sampling step", 24, LOOKS, bold=True),
    ]
    for number, (size, gain) in enumerate(gains.items()):
        shapes += _pair(size, gain, 64 + ROW_PX * number, longest)
    shapes.append(Text(MARGIN_PX, height - 18, "The demo's small FLUX, two CPU cores", 15, MUTED))
    return Drawing(WIDTH_PX, height, tuple(shapes))


def _pair(size: str, gain: Gain, top: float, longest: float) -> Iterator[Shape]:
    room = WIDTH_PX - NAMES_PX - MARGIN_PX - 190  # what stands behind the longest bar
    yield Text(MARGIN_PX, top + BAR_PX + 8, size, 18, LOOKS)
    for at, (name, seconds) in enumerate((("full", gain.usual), ("CLEAR", gain.ours))):
        below = top + at * (BAR_PX + 4)
        width = max(3.0, room * seconds / longest)
        yield Box(NAMES_PX, below, width, BAR_PX, SEEN if at else UNSEEN, 5)
        words = f"{name} {seconds:.3g} s"
        words += f", {gain.usual / gain.ours:.1f}x faster" if at else ""
        yield Text(NAMES_PX + width + 10, below + 18, words, 16, SEEN if at else MUTED, bool(at))


def main() -> None:
    """Write the chart."""
    from clear_attention.atomic_files import written_whole

    with written_whole(TARGET) as part:
        part.write_text(drawing().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
