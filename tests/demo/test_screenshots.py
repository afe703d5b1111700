"""Screenshots of ComfyUI's page: which are taken, where they go, what they show."""

from __future__ import annotations

import io
import re

import pytest
from pack import EXAMPLES, WORKFLOWS
from PIL import Image

from demo.page import screenshots, shot_files
from tools import workflows


def test_the_docs_show_all_pictures_that_are_kept_and_the_script_takes_them():
    shown = set(re.findall(r"screenshots/([\w-]+)\.jpg\)", shot_files.texts()))
    kept = {path.stem for path in shot_files.SHOWN.glob("*")}
    assert shown == kept and kept <= set(screenshots.SHOTS)


def test_the_pictures_that_are_kept_are_small():
    sizes = [path.stat().st_size for path in shot_files.SHOWN.glob("*")]
    assert sum(sizes) < 600_000


def test_a_picture_that_no_page_shows_is_for_looking_at_only():
    page = "![x](screenshots/gallery.jpg) and [y](screenshots/run-01.jpg)"
    assert shot_files.target("gallery", page) == shot_files.SHOWN / "gallery.jpg"
    assert shot_files.target("run-01", page) == shot_files.SHOWN / "run-01.jpg"
    assert shot_files.target("run-0", page) == shot_files.LOOKED_AT / "run-0.jpg"


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name[:2] in ("01", "02", "04")])
def test_a_workflow_for_a_picture_is_small_and_keeps_its_seed(name):
    workflow = screenshots.for_picture(workflows.load(WORKFLOWS / f"{name}.json"))
    values = [node.get("widgets_values") or [] for node in workflow["nodes"]]
    assert ["fixed" in each for each in values].count(True) == 1
    for node in workflow["nodes"]:
        for place in workflows.SIZES.get(node["type"], ()):
            assert node["widgets_values"][place] <= screenshots.LARGEST_PX


def test_a_screenshot_becomes_a_jpeg_of_the_docs_width(tmp_path):
    png = io.BytesIO()
    Image.new("RGBA", (1600, 800), "#135").save(png, "PNG")
    with Image.open(shot_files.write(png.getvalue(), tmp_path / "new" / "shot.jpg")) as picture:
        assert (picture.format, picture.size) == ("JPEG", (shot_files.WIDTH_PX, 500))
