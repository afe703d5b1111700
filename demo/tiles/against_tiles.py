"""Enlarge one picture in tiles, with CLEAR and with full attention, and lay them side by side.

``python3 demo/tiles/against_tiles.py`` writes docs/against_tiles.jpg. The demo's model, seed and
denoise are the same in all of them. The picture gives the seams, repeats and seconds of each.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.enter import enter
from tools.environment import reexec_in_venv
from tools.host import ROOT

TARGET = ROOT / "docs" / "against_tiles.jpg"
SIZE_PX = 2048  # four times the size of the example
PROMPT = "mountains"


def main() -> None:
    """Paint all of it, measure, draw, and write the picture."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=SIZE_PX, help="of the result, in pixels")
    arguments.add_argument("--target", type=Path, default=TARGET, help="file to write")
    options = arguments.parse_args()
    enter(reexec_in_venv())
    from clear_attention.atomic_files import written_whole
    from demo.tiles.drawing import Row, drawing
    from demo.tiles.enlarging import Enlarger, Setting

    enlarger, size = Enlarger(PROMPT), options.size
    strong, usual = Setting(0.6, controlled=False), Setting(0.3, controlled=True)
    part = (size * 9 // 16, size * 5 // 16)
    rows = [
        Row(f"{strong}: all of the picture", cells(enlarger, strong, size)),
        Row(f"{usual}: a part at its true size", cells(enlarger, usual, size), part),
    ]
    with written_whole(options.target) as temporary:
        drawing(rows, note()).image().convert("RGB").save(temporary, "JPEG", quality=82)


def cells(enlarger: Any, setting: Any, size: int) -> Sequence[Any]:
    """Enlarge the demo's example picture in each way, and measure what came out."""
    from PIL import Image

    from demo.install import EXAMPLE
    from demo.tiles.cutting import TILE_PX, as_image, as_tensor
    from demo.tiles.drawing import Cell
    from demo.tiles.measures import repeats, seams

    with Image.open(EXAMPLE) as small:
        enlarged = as_tensor(small.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))
    found: list[Cell] = []
    ways = {"tiles": enlarger.tiles, "CLEAR": enlarger.clear, "full attention": enlarger.full}
    for name, way in ways.items():
        painted = way(enlarged, setting)
        change = painted.picture - enlarged
        cell = Cell(
            name,
            as_image(painted.picture),
            seams(change, TILE_PX),
            repeats(change, TILE_PX),
            painted.seconds,
        )
        print(f"{setting}: {name}, {cell.seconds:.1f} s, {cell.figures}", flush=True)
        found.append(cell)
    return found


def note() -> str:
    """Say what painted, and where the seconds are from."""
    from benchmarks.results_file import device_name

    return (
        f"The demo's small FLUX, same seed, 20 steps; seconds of sampling on {os.cpu_count()} "
        f"cores of {device_name()}."
    )


if __name__ == "__main__":
    main()
