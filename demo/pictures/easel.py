"""Thumbnails that the demo's models paint: by the workflow itself, in a real ComfyUI."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from demo.install import EXAMPLE, write_models
from demo.pictures.scheme import Gain, painting
from demo.tiles.against_tiles import PROMPT
from tools import workflows
from tools.drawing import LOOKS, Drawing
from tools.host import HOSTS
from tools.server import Server

OURS = ("CLEARLoader", "CLEARControlNet")  # what makes the window
LINE = 0.008  # between two halves, of their width
PATIENCE_S = 3600
WARM_UP = 8  # what a run's sizes are divided by, so that the next finds all models loaded
Paint = Callable[["Easel", Path], Drawing]


@dataclass(frozen=True)
class Run:
    """What a workflow has painted.

    Attributes:
        pictures: In the order of its nodes.
        seconds: Of the whole run: text, sampling, decoding.
    """

    pictures: Sequence[Image.Image]
    seconds: float


@dataclass(frozen=True)
class Easel:
    """Runs workflows.

    Attributes:
        server: A running ComfyUI with the demo's models.
        info: Its description of the nodes.
    """

    server: Server
    info: dict[str, Any]

    def run(
        self,
        path: Path,
        shrink: int | Fraction,
        *,
        without: Sequence[str] = (),
        prompt: str | None = None,
    ) -> Run:
        """Run a workflow on the demo's models.

        Args:
            path: The workflow.
            shrink: Divides its sizes.
            without: Types of nodes that are bypassed.
            prompt: In place of its own.
        """
        workflow = workflows.with_demo_models(workflows.load(path), shrink=shrink)
        for kind in without:
            for node in workflows.nodes_of_type(workflow, kind):
                node["mode"] = workflows.BYPASSED
        for node in workflows.nodes_of_type(workflow, "CLIPTextEncode") if prompt else ():
            node["widgets_values"] = [prompt]
        began = time.perf_counter()
        entry = self.server.run(workflows.to_prompt(workflow, self.info), timeout=PATIENCE_S)
        seconds = time.perf_counter() - began
        pictures: list[Image.Image] = []
        for file in self.server.images(entry):
            with Image.open(file) as picture:
                pictures.append(picture.convert("RGB"))
        return Run(pictures, seconds)


@contextmanager
def easel(host: Path) -> Generator[Easel]:
    """Start a ComfyUI with the demo's models for the length of a ``with``."""
    base = HOSTS / "demo"
    write_models(base)
    with Server(host, base, options=("--use-pytorch-cross-attention",)) as server:
        yield Easel(server, server.object_info())


def text_to_image(brush: Easel, path: Path) -> Drawing:
    """Paint with full attention and with CLEAR, at the workflow's own size."""
    brush.run(path, WARM_UP)
    full, clear = brush.run(path, 1, without=OURS), brush.run(path, 1)
    picture = halves(full.pictures[-1], clear.pictures[-1])
    return painting("left: full attention, right: CLEAR", picture, gain(full, clear))


def upscale(brush: Easel, path: Path) -> Drawing:
    """Enlarge the demo's picture four times, and show a part before and after."""
    brush.run(path, WARM_UP)
    full, clear = (brush.run(path, 2, without=without, prompt=PROMPT) for without in (OURS, ()))
    after = clear.pictures[-1]
    with Image.open(EXAMPLE) as small:
        before = small.convert("RGB").resize(after.size, Image.Resampling.LANCZOS)
    picture = halves(before, after, part=0.4)
    return painting("left: before, right: after", picture, gain(full, clear))


def lora(brush: Easel, path: Path) -> Drawing:
    """Paint without the LoRA and with it, both with CLEAR."""
    shrink = Fraction(1024, 768)
    without = brush.run(path, shrink, without=["LoraLoaderModelOnly"])
    picture = halves(without.pictures[-1], brush.run(path, shrink).pictures[-1])
    return painting("left: CLEAR, right: with the LoRA, too", picture, None)


def seamless(brush: Easel, path: Path) -> Drawing:
    """Paint a texture, and lay four of it side by side."""
    texture = brush.run(path, Fraction(1024, 768)).pictures[-1]
    return painting("four copies, side by side", copies(texture), None)


PAINTINGS: dict[str, Paint] = {
    "01": text_to_image,
    "02": upscale,
    "04": lora,
    "06": seamless,
}
"""By the number that a workflow's name begins with; the others are drawn, see `scheme`."""


def gain(full: Run, clear: Run) -> Gain:
    """Compare the seconds of two runs."""
    note = f"the whole run, the demo's small model, {os.cpu_count()} CPU cores"
    return Gain(full.seconds, clear.seconds, "s", note)


def halves(left: Image.Image, right: Image.Image, part: float = 1) -> Image.Image:
    """Show the left of one picture and the right of another of the same size.

    Args:
        left: One.
        right: The other.
        part: Share of their width and height that is shown, around the middle.
    """
    x, y = (round(edge * (1 - part) / 2) for edge in left.size)
    box = (x, y, left.width - x, left.height - y)
    shown, other = left.crop(box), right.crop(box)
    middle, line = shown.width // 2, max(1, round(shown.width * LINE / 2))
    shown.paste(other.crop((middle, 0, *other.size)), (middle, 0))
    shown.paste(LOOKS, (middle - line, 0, middle + line, shown.height))
    return shown


def copies(picture: Image.Image) -> Image.Image:
    """Lay four copies of a picture side by side."""
    width, height = picture.size
    sheet = Image.new("RGB", (2 * width, 2 * height))
    for x, y in ((0, 0), (width, 0), (0, height), (width, height)):
        sheet.paste(picture, (x, y))
    return sheet
