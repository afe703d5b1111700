"""Enlarge a shrunk photograph four times in several ways, and compare with the photograph itself.

``python3 demo/tiles/against_truth.py`` writes the table into demo/README.md. The photograph is none
of those that the demo's model has learned.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.enter import enter
from demo.markdown import README, replace_between
from tools.environment import BASE, ensure, reexec_in_venv

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from demo.tiles.enlarging import Painted, Setting

SIZE_PX = 2048
TIMES = 4
NAME = "demo/tiles/against_truth.py"
START, END = f"<!-- from {NAME} -->", f"<!-- end of {NAME} -->"


def main() -> None:
    """Enlarge, compare, and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=SIZE_PX, help="of the photograph, in pixels")
    options = arguments.parse_args()
    host = reexec_in_venv()
    from demo.train import PACKAGES

    ensure(BASE, "photographs", PACKAGES)
    enter(host)
    lines = [
        "| way | low band | high band | seams | repeats | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for line in rows(options.size):
        print(line, flush=True)
        lines.append(line)
    replace_between(README, "\n".join(lines), START, END)


def rows(size: int) -> Iterator[str]:
    """Yield a row of the table for each way."""
    from demo.teaching.photographs import UNSEEN
    from demo.tiles.cutting import TILE_PX, as_tensor
    from demo.tiles.enlarging import Enlarger, Setting
    from demo.tiles.measures import high_distance, low_distance, repeats, seams

    photograph = UNSEEN.load()
    truth = as_tensor(resized(photograph, size))
    small = as_tensor(resized(photograph, size // TIMES))
    enlarger, setting = Enlarger(UNSEEN.phrases[0]), Setting(0.3, controlled=True)
    plain = enlarged(small, TIMES)
    ways: dict[str, Callable[[Tensor, Setting], Painted] | None] = {
        "Lanczos": None,
        "tiles": enlarger.tiles,
        "CLEAR": enlarger.clear,
        "full attention": enlarger.full,
    }
    for name, way in ways.items():
        picture, seconds = (plain, 0.0) if way is None else cascade(small, way, setting)
        low, high = low_distance(picture, truth), high_distance(picture, truth)
        cells = [name, f"{low:.4f}", f"{high:.2f}", "", "", ""]
        if way is not None:
            lines, copies = seams(picture - plain, TILE_PX), repeats(picture - plain, TILE_PX)
            cells[3:] = f"{lines:.1f}", f"{max(0.0, copies):.2f}", f"{seconds:.1f}"
        yield "| " + " | ".join(cells) + " |"


def cascade(
    small: Tensor, way: Callable[[Tensor, Setting], Painted], setting: Setting
) -> tuple[Tensor, float]:
    """Enlarge twice by two and paint over each time; return the picture and the seconds."""
    picture, seconds = small, 0.0
    for _ in range(2):
        painted = way(enlarged(picture, 2), setting)
        picture, seconds = painted.picture.clamp(0, 1), seconds + painted.seconds
    return picture, seconds


def enlarged(picture: Tensor, times: int) -> Tensor:
    """Enlarge a picture ``[H, W, 3]`` by Lanczos."""
    from demo.tiles.cutting import as_image, as_tensor

    return as_tensor(resized(as_image(picture), picture.shape[0] * times))


def resized(picture: Image, edge: int) -> Image:
    """Resize a square picture by Lanczos."""
    from PIL.Image import Resampling

    return picture.resize((edge, edge), Resampling.LANCZOS)


if __name__ == "__main__":
    main()
