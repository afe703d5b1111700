"""Draw the icon and the banner of the Comfy registry: ``python3 tools/icon.py`` writes them.

The registry takes a square icon of at most 400 pixels and a banner of 21 : 9.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tools.environment import reexec_in_venv

    reexec_in_venv()

from tools.drawing import BACKGROUND, MUTED, SEEN, Box, Drawing, Text, window
from tools.host import ROOT

FOLDER = ROOT / "docs"
ICON_PX, BANNER_PX = 400, (1680, 720)


def icon() -> Drawing:
    """Draw a token and the disc that it sees."""
    ground = Box(0, 0, ICON_PX, ICON_PX, BACKGROUND, ICON_PX * 0.14)
    grid = window(32, 32, ICON_PX - 64, tokens=11, radius=5, at=(5, 5))
    return Drawing(ICON_PX, ICON_PX, (ground, *grid))


def banner() -> Drawing:
    """Draw the disc in a large picture, beside what the pack is for."""
    width, height = BANNER_PX
    lines = (
        Text(800, 300, "CLEAR Attention", 84, bold=True),
        Text(804, 372, "Big pictures in a fraction of the time,", 38, SEEN),
        Text(804, 422, "with the model that you have", 38, SEEN),
        Text(804, 512, "FLUX, Z-Image, Qwen-Image, Krea 2, Chroma,", 27, MUTED),
        Text(804, 550, "SD3.5, Hunyuan, Wan and more, in ComfyUI", 27, MUTED),
    )
    grid = window(40, 40, height - 80, tokens=25, radius=8, at=(11, 13))
    return Drawing(width, height, (Box(0, 0, width, height, BACKGROUND), *grid, *lines))


def main() -> None:
    """Write the three files."""
    from clear_attention.atomic_files import written_whole

    with written_whole(FOLDER / "icon.svg") as part:
        part.write_text(icon().svg(), encoding="utf-8")
    for name, drawing in (("icon.png", icon()), ("banner.png", banner())):
        with written_whole(FOLDER / name) as part:
            drawing.image().save(part, "PNG", optimize=True)


if __name__ == "__main__":
    main()
