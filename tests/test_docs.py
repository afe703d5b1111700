"""The README and the pages behind it: short, whole, and without a dead link."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pack import EXAMPLES, WORKFLOWS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "DESIGN.md",
    *(ROOT / "docs").glob("*.md"),
]
MOST_LINES = 115
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NUMBERED = re.compile(r"\*(\d\d [^*]+)\*")


def test_the_readme_stays_short():
    assert len(README.splitlines()) <= MOST_LINES


def test_the_readme_begins_with_what_it_is_and_what_was_measured():
    titles = re.findall(r"(?m)^## (.*)$", README)
    assert titles[:3] == ["Install", "Use these two nodes", "Will it fit my card?"]
    first = README.split("\n## ")[0]
    assert "Measured on" in first and "Not measured: any" in first.replace("\n", " ")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_to_a_file_finds_it(path):
    links = LINK.findall(path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_every_page_is_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        todo += [page.parent / link for link in links if "://" not in link]
    assert {path.resolve() for path in (ROOT / "docs").glob("*.md")} <= seen


def test_the_readme_names_every_node():
    names = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    named = README.replace("**CLEAR Upscale**", "**CLEAR Upscale (1K to 8K)**")
    missing = [node["display_name"] for node in names.values()
               if f"**{node['display_name']}**" not in named]  # fmt: skip
    assert missing == []


def test_the_page_of_workflows_lists_them_in_their_order():
    page = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| (\d\d [^|]+) \|", page) == EXAMPLES
    assert [int(name[:2]) for name in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


def test_every_workflow_that_a_text_names_is_there():
    notes = [
        value
        for path in WORKFLOWS.glob("*.json")
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]
        if node["type"] == "MarkdownNote"
        for value in node["widgets_values"]
    ]
    helps = [path.read_text(encoding="utf-8") for path in (ROOT / "web" / "docs").glob("*/*.md")]
    named = {name for text in [README, *notes, *helps] for name in NUMBERED.findall(text)}
    assert named and named <= set(EXAMPLES)
