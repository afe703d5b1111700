"""The chart of seconds per step: drawn from the committed results."""

from __future__ import annotations

from demo.pictures import scheme, steps_chart
from tools.drawing import Text, text_width


def test_the_chart_is_what_the_script_draws_of_the_committed_results():
    drawn = steps_chart.drawing()
    assert steps_chart.TARGET.read_text(encoding="utf-8") == drawn.svg()
    words = " ".join(shape.text for shape in drawn.shapes if isinstance(shape, Text))
    for size, file in steps_chart.SIZES.items():
        gain = scheme.measured(file, size)()
        assert f"CLEAR {gain.ours:.3g} s, {gain.usual / gain.ours:.1f}x faster" in words


def test_nothing_is_written_beyond_its_edge():
    for shape in steps_chart.drawing().shapes:
        if isinstance(shape, Text):
            end = shape.x + text_width(shape.text, shape.size, bold=shape.bold)
            assert end <= steps_chart.WIDTH_PX, shape
