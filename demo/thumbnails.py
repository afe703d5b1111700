"""Make the example workflows' thumbnails: drawn, or painted on the demo's models in a real ComfyUI.

``python3 demo/thumbnails.py`` writes a picture beside every workflow, or beside those whose numbers
it is given (``python3 demo/thumbnails.py 01 02``). ``--paint`` paints them all the same: full
attention on the left, CLEAR on the right, with the seconds that the sampling took.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.environment import reexec_in_venv
from tools.host import HOSTS

if TYPE_CHECKING:
    from PIL.Image import Image

# The demo's teacher paints 384 pixels where FLUX paints 1024.
SHRINK = Fraction(1024, 384)
OURS = ("CLEARLoader", "CLEARAttention")  # what makes the window


def main(arguments: list[str]) -> None:
    """Write thumbnails, every one if no number is given."""
    host = reexec_in_venv()
    from demo.scheme import drawing, scheme_of
    from tools import workflows

    numbers = [word for word in arguments if word.isdigit()]
    painted: list[Path] = []
    for path in workflows.example_workflows():
        if numbers and path.stem[:2] not in numbers:
            continue
        scheme = None if "--paint" in arguments else scheme_of(path)
        if scheme is None:
            painted.append(path)
        else:
            write_thumbnail(drawing(title_of(path), scheme).image(), jpeg(path))
    if painted:
        paint(painted, host)


def title_of(path: Path) -> str:
    """Return a workflow's name without its number."""
    return path.stem[3:]


def paint(paths: list[Path], host: Path) -> None:
    """Run workflows with full attention and with CLEAR, and write both halves as thumbnails."""
    from demo.install import write_models
    from tools.server import Server

    base = HOSTS / "demo"
    write_models(base)
    with Server(host, base, options=("--use-pytorch-cross-attention",)) as server:
        info = server.object_info()
        for path in paths:
            full = run(server, info, path, clear=False)
            write_thumbnail(halves(full, run(server, info, path, clear=True)), jpeg(path))
            print(f"{path.stem}: done", flush=True)


def jpeg(path: Path) -> Path:
    """Return where a workflow's thumbnail lies."""
    return path.with_suffix(".jpg")


def run(server: Any, info: dict[str, Any], path: Path, *, clear: bool) -> tuple[Image, float]:
    """Return the picture of a workflow, and the seconds from its first step to its last.

    Args:
        server: A running ComfyUI.
        info: Its description of the nodes.
        path: The workflow.
        clear: With the window; without, its node is bypassed.
    """
    from PIL import Image

    from tools import workflows

    workflow = workflows.with_demo_models(workflows.load(path), shrink=SHRINK)
    for kind in OURS:
        for node in workflows.nodes_of_type(workflow, kind):
            node["mode"] = 0 if clear else workflows.BYPASSED
    ends: list[float] = []
    prompt = workflows.to_prompt(workflow, info)

    def step(node: str, *_: int) -> None:
        if not prompt[node]["class_type"].startswith("VAE"):  # tiles report their progress, too
            ends.append(time.perf_counter())

    entry = server.run(prompt, on_progress=step)
    with Image.open(server.images(entry)[-1]) as picture:
        return picture.convert("RGB"), ends[-1] - ends[0]


def halves(full: tuple[Image, float], clear: tuple[Image, float]) -> Image:
    """Lay the left half of one picture beside the right half of another, with their seconds."""
    from demo.scheme import EDGE_PX
    from tools.drawing import BACKGROUND, LOOKS, SEEN, Box, Drawing, Photo, Shape, Text, text_width

    half = EDGE_PX / 2
    shapes: list[Shape] = []
    for at, ((picture, seconds), name) in enumerate(
        zip((full, clear), ("full", "CLEAR"), strict=True)
    ):
        left = picture.width // 2 * at
        part = picture.crop((left, 0, left + picture.width // 2, picture.height))
        words = f"{name} {seconds:.1f} s"
        label = Box(half * at + 12, EDGE_PX - 50, text_width(words, 22) + 24, 38, BACKGROUND, 8)
        colour = SEEN if at else LOOKS
        shapes += [
            Photo(half * at, 0, half, EDGE_PX, part),
            label,
            Text(label.x + 12, label.y + 27, words, 22, colour, bold=True),
        ]
    line = Box(half - 1, 0, 2, EDGE_PX, LOOKS)
    return Drawing(EDGE_PX, EDGE_PX, (*shapes, line)).image()


def write_thumbnail(picture: Image, target: Path) -> None:
    """Write a picture, as a whole or not at all."""
    from clear_attention.atomic_files import written_whole

    with written_whole(target) as part:
        picture.convert("RGB").save(part, "JPEG", quality=90, subsampling=0)


if __name__ == "__main__":
    main(sys.argv[1:])
