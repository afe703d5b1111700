"""Thumbnails of the example workflows: drawn from committed figures, or painted in two halves."""

from __future__ import annotations

import numpy as np
import pytest
from pack import EXAMPLES, WORKFLOWS
from PIL import Image

from demo.pictures import easel, scheme
from tools.drawing import Text, text_width

PATHS = {name[:2]: WORKFLOWS / f"{name}.json" for name in EXAMPLES}
SIDE_BY_SIDE = scheme.Gain(12.0, 3.0, "s", "the whole run, two CPU cores")


def test_every_workflow_has_a_thumbnail_of_one_kind():
    assert sorted([*scheme.SCHEMES, *easel.PAINTINGS]) == sorted(PATHS)


@pytest.mark.parametrize("number", scheme.SCHEMES)
def test_a_drawn_thumbnail_is_what_the_script_draws(number):
    drawn = scheme.drawing(scheme.SCHEMES[number]).image().convert("RGB")
    with Image.open(PATHS[number].with_suffix(".jpg")) as picture:
        kept = np.asarray(picture.convert("RGB"), dtype=float)
    # JPEG's rounding, and letters that another FreeType smooths differently.
    assert np.abs(kept - np.asarray(drawn, dtype=float)).mean() < 2


@pytest.mark.parametrize("number", scheme.SCHEMES)
def test_nothing_is_written_beyond_the_edge(number):
    shown = scheme.drawing(scheme.SCHEMES[number])
    for text in [shape for shape in shown.shapes if isinstance(shape, Text)]:
        assert text.x + text_width(text.text, text.size, bold=text.bold) <= scheme.EDGE_PX, text


def test_the_gain_is_that_of_the_committed_result():
    gain = scheme.measured("host", "2048 x 2048")()
    (path,) = scheme.RESULTS.glob("host_*.md")
    assert f"| 2048 x 2048 | {gain.usual:.3f} | {gain.ours:.3f} |" in path.read_text("utf-8")
    assert gain.usual > gain.ours


@pytest.mark.parametrize("gain", [SIDE_BY_SIDE, None])
def test_a_painted_thumbnail_shows_one_picture_left_and_the_other_right(gain):
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("#f00", "#00f"))
    drawing = scheme.painting("words", easel.halves(red, blue), gain)
    picture = np.asarray(drawing.image().convert("RGB"))
    assert picture.shape == (scheme.EDGE_PX, scheme.EDGE_PX, 3)
    row = picture[100]
    assert row[5].tolist() == [255, 0, 0]
    assert row[-5].tolist() == [0, 0, 255]
    assert row[scheme.EDGE_PX // 2].min() > 200, "no line between them"


def test_the_seconds_on_a_thumbnail_are_those_of_the_runs():
    full, clear = (easel.Run((), 20, seconds) for seconds in (12.0, 3.0))
    found = easel.gain(full, clear)
    drawn = scheme.painting("words", Image.new("RGB", (8, 8)), found)
    words = [shape.text for shape in drawn.shapes if isinstance(shape, Text)]
    assert "full 12 s" in words and "CLEAR 3 s, 4.0x faster" in words
    assert words[-1].startswith("19 of 20 steps, ")
