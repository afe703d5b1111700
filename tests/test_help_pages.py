"""Help pages fit a narrow panel: three steps and a picture first, tables of two columns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import help_pictures

DOCS = Path(__file__).parents[1] / "web" / "docs"
PAGES = sorted(DOCS.glob("*/*.md"))
FIRST_SCREEN = 900
"""Letters of text above the end of the first picture: about what the panel shows at once."""


def pictures(text):
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)


def name(path):
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_no_table_has_more_than_two_columns(path):
    rows = [line for line in path.read_text("utf-8").splitlines() if line.startswith("|")]
    assert rows and all(row.count("|") == 3 for row in rows)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_three_steps_and_a_picture_come_first(path):
    first, steps, *_ = re.split(r"(?m)^## .*$", path.read_text("utf-8"))
    assert first.startswith("# ")
    assert re.findall(r"(?m)^(\d)\. ", steps) == ["1", "2", "3"]
    assert steps.strip().startswith("1. ") and steps.index("\n3. ") < steps.index("![")
    assert len(first) + steps.index("![") < FIRST_SCREEN
    (picture,) = pictures(steps)
    assert picture.startswith(path.parent.name) and (DOCS / picture).is_file()


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in PAGES}), ids=lambda path: path.name
)
def test_every_language_shows_the_same_picture_first(folder):
    first = {pictures(path.read_text("utf-8"))[0] for path in folder.glob("*.md")}
    assert len(first) == 1
    assert {path.stem for path in folder.glob("*.md")} == {"en", "zh", "ja"}


@pytest.mark.parametrize("node_id", help_pictures.PICTURES)
def test_the_picture_of_a_help_page_is_what_the_script_draws(node_id):
    drawn = help_pictures.drawing(*help_pictures.PICTURES[node_id]).image().convert("RGB")
    with Image.open(DOCS / node_id / "where.png") as picture:
        kept = np.asarray(picture.convert("RGBA").convert("RGB"), dtype=float)
    assert kept.shape == (help_pictures.HEIGHT, help_pictures.WIDTH, 3)
    # Of the palette's rounding and of letters that another FreeType smooths differently.
    assert np.abs(kept - np.asarray(drawn, dtype=float)).mean() < 1.5


def test_every_picture_in_the_folder_is_shown():
    shown = {picture for path in PAGES for picture in pictures(path.read_text("utf-8"))}
    files = [path for path in DOCS.glob("*/*") if path.suffix in (".png", ".jpg")]
    assert {path.relative_to(DOCS).as_posix() for path in files} == shown
