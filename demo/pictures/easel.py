"""Thumbnails that the demo's models paint: by the workflow itself, in a real ComfyUI."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from demo.install import write_models
from demo.pictures.scheme import Gain, painting
from tools import workflows
from tools.drawing import LOOKS, Drawing
from tools.host import HOSTS
from tools.server import Server

OURS = ("CLEARLoader",)  # what makes the window
LINE = 0.008  # between two halves, of their width
PATIENCE_S = 3600
Paint = Callable[["Easel", Path], Drawing]


@dataclass(frozen=True)
class Run:
    """What a workflow has painted.

    Attributes:
        pictures: In the order of its nodes.
        steps: Of sampling.
        seconds: From the end of the first step, which also loads models, to that of the last.
    """

    pictures: Sequence[Image.Image]
    steps: int
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

    def run(self, path: Path, *, without: Sequence[str] = ()) -> Run:
        """Run a workflow on the demo's models, at its own size.

        Args:
            path: The workflow.
            without: Types of nodes that are bypassed.
        """
        workflow = workflows.with_demo_models(workflows.load(path))
        for kind in without:
            for node in workflows.nodes_of_type(workflow, kind):
                node["mode"] = workflows.BYPASSED
        graph, ends = workflows.to_prompt(workflow, self.info), list[float]()

        def step(node: str, *_: int) -> None:
            if not graph[node]["class_type"].startswith("VAE"):  # tiles report their progress, too
                ends.append(time.perf_counter())

        entry = self.server.run(graph, on_progress=step, timeout=PATIENCE_S)
        pictures: list[Image.Image] = []
        for file in self.server.images(entry):
            with Image.open(file) as picture:
                pictures.append(picture.convert("RGB"))
        return Run(pictures, len(ends), ends[-1] - ends[0])


@contextmanager
def easel(host: Path) -> Generator[Easel]:
    """Start a ComfyUI with the demo's models for the length of a ``with``."""
    base = HOSTS / "demo"
    write_models(base)
    with Server(host, base, options=("--use-pytorch-cross-attention",)) as server:
        yield Easel(server, server.object_info())


def text_to_image(brush: Easel, path: Path) -> Drawing:
    """Paint with full attention and with CLEAR, at the workflow's own size."""
    full, clear = brush.run(path, without=OURS), brush.run(path)
    picture = halves(full.pictures[-1], clear.pictures[-1])
    return painting("left: full attention, right: CLEAR", picture, gain(full, clear))


PAINTINGS: dict[str, Paint] = {
    "01": text_to_image,
}
"""By the number that a workflow's name begins with; the others are drawn, see `scheme`."""


def gain(full: Run, clear: Run) -> Gain:
    """Compare the seconds of two runs with as many steps."""
    steps = f"{clear.steps - 1} of {clear.steps} steps"
    note = f"{steps}, the demo's small model, {os.cpu_count()} CPU cores"
    return Gain(full.seconds, clear.seconds, "s", note)


def halves(left: Image.Image, right: Image.Image) -> Image.Image:
    """Show the left of one picture and the right of another of the same size."""
    shown = left.copy()
    middle, line = shown.width // 2, max(1, round(shown.width * LINE / 2))
    shown.paste(right.crop((middle, 0, *right.size)), (middle, 0))
    shown.paste(LOOKS, (middle - line, 0, middle + line, shown.height))
    return shown
