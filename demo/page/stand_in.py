"""This pack as a user installs it, but with workflows that run on the demo's models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from tools import workflows
from tools.folders import is_link, link, unlink
from tools.host import ROOT

PARTS = ("clear_attention", "nodes", "web", "locales", "subgraphs")


def write_pack(folder: Path, shrink: Fraction) -> None:
    """Make a folder of this pack whose workflows have the demo's loaders, files and sizes.

    Their names and thumbnails are the pack's own, so that ComfyUI's page shows them in its gallery
    as it shows those.

    Args:
        folder: Is made anew.
        shrink: Divides all picture sizes.
    """
    if folder.is_dir():
        for old in filter(is_link, folder.iterdir()):
            unlink(old)
        shutil.rmtree(folder)
    (folder / "workflows").mkdir(parents=True)
    shutil.copy(ROOT / "__init__.py", folder)
    for part in PARTS:
        link(folder / part, ROOT / part)
    for path in workflows.example_workflows():
        demo = workflows.with_demo_models(workflows.load(path), shrink)
        text = json.dumps(demo)
        (folder / "workflows" / path.name).write_text(text, encoding="utf-8")
        shutil.copy(path.with_suffix(".jpg"), folder / "workflows")


def differences(real: dict[str, Any], demo: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a workflow has and what stands in for it: types of nodes, and values of widgets.

    Args:
        real: The workflow.
        demo: The same with the demo's models.
    """
    for theirs, ours in zip(real["nodes"], demo["nodes"], strict=True):
        if theirs["type"] != ours["type"]:
            yield f"`{theirs['type']}`", ours["type"]
        for value, other in zip(
            theirs.get("widgets_values") or (), ours.get("widgets_values") or (), strict=True
        ):
            if value != other:
                yield f"`{value}` in `{theirs['type']}`", str(other)
