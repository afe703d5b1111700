"""Files of screenshots: small JPEGs, among the docs where one of their pages shows them."""

from __future__ import annotations

import io
from pathlib import Path

from tools.host import ROOT

SHOWN, LOOKED_AT = ROOT / "docs" / "screenshots", ROOT / "output" / "screenshots"
WIDTH_PX, QUALITY = 1000, 80


def texts() -> str:
    """Return all pages that may show a picture, as one text."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def target(name: str, pages: str) -> Path:
    """Return the file of a picture: among the docs if one of their pages shows it.

    Args:
        name: Of the picture.
        pages: The docs' text.
    """
    folder = SHOWN if f"screenshots/{name}.jpg)" in pages else LOOKED_AT
    return folder / f"{name}.jpg"


def write(picture: bytes, path: Path) -> Path:
    """Write a screenshot as a small JPEG, whole or not at all, and return its path."""
    from PIL import Image

    from clear_attention.atomic_files import written_whole

    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(picture)) as shot, written_whole(path) as part:
        size = (WIDTH_PX, round(WIDTH_PX * shot.height / shot.width))
        small = shot.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        small.save(part, "JPEG", quality=QUALITY, optimize=True)
    return path
