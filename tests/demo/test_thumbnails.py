"""Thumbnails of the example workflows: drawn from committed figures, or painted in two halves."""

from __future__ import annotations

import numpy as np
import pytest
from pack import EXAMPLES, WORKFLOWS
from PIL import Image

from demo import scheme, thumbnails

PATHS = {name: WORKFLOWS / f"{name}.json" for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_drawn_thumbnail_is_what_the_script_draws(name):
    shown = scheme.scheme_of(PATHS[name])
    if shown is None:
        return  # painted: how, depends on the demo's model
    drawn = scheme.drawing(thumbnails.title_of(PATHS[name]), shown).image().convert("RGB")
    with Image.open(PATHS[name].with_suffix(".jpg")) as picture:
        kept = np.asarray(picture.convert("RGB"), dtype=float)
    # JPEG's rounding, and letters that another FreeType smooths differently.
    assert np.abs(kept - np.asarray(drawn, dtype=float)).mean() < 2


@pytest.mark.parametrize("number", scheme.SCHEMES)
def test_nothing_is_written_beyond_the_edge(number):
    from tools.drawing import Text, text_width

    (path,) = [path for path in PATHS.values() if path.stem.startswith(number)]
    shown = scheme.drawing(thumbnails.title_of(path), scheme.SCHEMES[number])
    for text in [shape for shape in shown.shapes if isinstance(shape, Text)]:
        assert text.x + text_width(text.text, text.size, bold=text.bold) <= scheme.EDGE_PX, text


def test_the_gain_is_that_of_the_committed_result():
    gain = scheme.measured("host", "2048 x 2048")()
    (path,) = scheme.RESULTS.glob("host_*.md")
    assert f"| 2048 x 2048 | {gain.usual:.3f} | {gain.ours:.3f} |" in path.read_text("utf-8")
    assert gain.usual > gain.ours


def test_a_painted_thumbnail_has_full_attention_left_and_clear_right():
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("#f00", "#00f"))
    picture = np.asarray(thumbnails.halves((red, 12.0), (blue, 3.0)).convert("RGB"))
    assert picture.shape == (scheme.EDGE_PX, scheme.EDGE_PX, 3)
    assert picture[100, 10].tolist() == [255, 0, 0] and picture[100, -10].tolist() == [0, 0, 255]
    labels = picture[scheme.EDGE_PX - 40 :]
    assert (labels != picture[100]).any(axis=(0, 2)).sum() > 100
