"""Draw the picture of a help page: where the node stands, and what it does to a picture.

``python3 tools/help_pictures.py`` writes ``web/docs/<node>/where.png`` of every node that has one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tools.environment import reexec_in_venv

    reexec_in_venv()

from PIL import Image

from tools import figures
from tools.drawing import BACKGROUND, LOOKS, MUTED, SEEN, UNSEEN, Box, Drawing, Shape, Text
from tools.figures import Figure
from tools.host import ROOT

FOLDER = ROOT / "web" / "docs"
WIDTH, HEIGHT, MARGIN = 760, 300, 20
EDGE = HEIGHT - 2 * MARGIN
LEFT = WIDTH - MARGIN - EDGE  # of the square on the right
COLOURS = 64  # of the file: flat shapes need few


def drawing(chain: tuple[str, str, str], figure: Figure) -> Drawing:
    """Draw three nodes, the middle one of them this pack's, beside a figure."""
    ground = Box(0, 0, WIDTH, HEIGHT, BACKGROUND, 14)
    return Drawing(WIDTH, HEIGHT, (ground, *_chain(chain), *figure(LEFT, MARGIN, EDGE)))


def _chain(names: tuple[str, str, str]) -> Iterator[Shape]:
    height, gap = 64, (EDGE - 3 * 64) / 2
    width = LEFT - 3 * MARGIN
    yield Box(MARGIN + 40, MARGIN + 20, 5, EDGE - 40, MUTED)
    for at, name in enumerate(names):
        ours = at == 1
        top = MARGIN + at * (height + gap)
        yield Box(MARGIN, top, width, height, SEEN if ours else UNSEEN, 12)
        colour = BACKGROUND if ours else LOOKS
        yield Text(MARGIN + 20, top + 41, name, 25, colour, bold=ours)


LOAD, CLEAR, SAMPLE, SAVE = "Load Diffusion Model", "Load CLEAR Attention", "KSampler", "Save Image"
PICTURES: dict[str, tuple[tuple[str, str, str], Figure]] = {
    "CLEARLoader": ((LOAD, CLEAR, SAMPLE), figures.disc),
    "CLEARAttention": ((LOAD, "CLEAR Attention", SAMPLE), figures.disc),
    "CLEARHighRes": ((CLEAR, "CLEAR High Resolution", SAMPLE), figures.larger),
    "CLEARSeamless": ((CLEAR, "CLEAR Seamless", SAMPLE), figures.wrapped_disc),
    "CLEARSeamlessDecode": ((SAMPLE, "CLEAR Seamless Decode", SAVE), figures.copies),
    "CLEARControlNet": (
        ("Load ControlNet Model", "CLEAR ControlNet", "Apply ControlNet"),
        figures.two_discs,
    ),
    "CLEARUpscale": ((CLEAR, "CLEAR Upscale", SAVE), figures.stages),
    "CLEARLowMemory": ((CLEAR, "CLEAR Low Memory", SAMPLE), figures.one_slice),
    "CLEARParallel": ((CLEAR, "CLEAR Parallel", SAMPLE), figures.shared_rows),
    "CLEARParallelDecode": ((SAMPLE, "CLEAR Parallel Decode", SAVE), figures.shared_tiles),
    "CLEARCluster": ((CLEAR, "CLEAR Cluster", SAMPLE), figures.two_machines),
    "CLEARLocality": ((LOAD, "CLEAR Locality Probe", "Preview Image"), figures.reach),
    "CLEARExtractLoRA": ((LOAD, "Extract CLEAR LoRA", CLEAR), figures.thin_factors),
}
"""The other help pages show what their node draws."""


def main() -> None:
    """Write the picture of every node."""
    from clear_attention.atomic_files import written_whole

    for node_id, (chain, figure) in PICTURES.items():
        image = drawing(chain, figure).image()
        flat = image.quantize(COLOURS, Image.Quantize.FASTOCTREE)
        with written_whole(FOLDER / node_id / "where.png") as part:
            flat.save(part, "PNG", optimize=True)


if __name__ == "__main__":
    main()
