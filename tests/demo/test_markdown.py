"""Tables in Markdown files are replaced between their marks; all other text stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.markdown import replace_between


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text("before\n<a>\n\nold\n\n<b>\nafter <a>\n", encoding="utf-8")
    replace_between(path, "| new |\n", "<a>", "<b>")
    assert path.read_text(encoding="utf-8") == "before\n<a>\n\n| new |\n\n<b>\nafter <a>\n"


def test_a_file_without_the_marks_is_refused_and_kept(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text("<b> <a>", encoding="utf-8")
    with pytest.raises(ValueError, match="must have the lines <a> and <b>"):
        replace_between(path, "new", "<a>", "<b>")
    assert path.read_text(encoding="utf-8") == "<b> <a>"
