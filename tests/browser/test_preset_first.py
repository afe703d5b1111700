"""The preset of CLEAR Upscale: shown first, and saved in the place that it has had."""

from __future__ import annotations

import copy

import pytest
from pack import WORKFLOWS

from tools import workflows

pytestmark = pytest.mark.long

UPSCALE = "CLEARUpscale"
WIDGETS = """app.graph.nodes.find(node => node.type === 'CLEARUpscale').widgets
    .map(widget => [widget.name, widget.value])"""
COPY = """() => {
    const node = app.graph.nodes.find(node => node.type === 'CLEARUpscale');
    const copy = node.clone();
    app.graph.add(copy);
    app.graph.remove(node);
}"""


def example():
    """Return a workflow, and its node."""
    workflow = copy.deepcopy(workflows.load(WORKFLOWS / "02 Any picture to 4K.json"))
    (node,) = workflows.nodes_of_type(workflow, UPSCALE)
    return workflow, node


def saved_values(page):
    (node,) = workflows.nodes_of_type(page.saved(), UPSCALE)
    return node["widgets_values"]


@pytest.fixture
def page(page_as_it_is):
    yield page_as_it_is
    assert page_as_it_is.errors == []


def test_the_preset_is_shown_first_and_saved_where_it_was(page, server):
    workflow, node = example()
    page.open_workflow(workflow, "preset")
    page.wait_for_script("app.graph.nodes.some(node => node.type === 'CLEARUpscale')", "it", 20)
    shown = page.page.evaluate(WIDGETS)
    assert [name for name, _ in shown][:2] == ["preset", "size"]
    schema = server.object_info()[UPSCALE]
    assert dict(workflows.widget_values(node, schema)).items() <= dict(shown).items()
    assert saved_values(page) == node["widgets_values"]
    page.page.evaluate(COPY)
    assert saved_values(page) == node["widgets_values"]


def test_a_file_from_before_the_preset_opens_with_the_neutral_one(page):
    workflow, node = example()
    was = node["widgets_values"].pop()
    assert was != "custom"
    page.open_workflow(workflow, "before")
    page.wait_for_script("app.graph.nodes.some(node => node.type === 'CLEARUpscale')", "it", 20)
    assert dict(page.page.evaluate(WIDGETS))["preset"] == "custom"
    assert saved_values(page) == [*node["widgets_values"], "custom"]
    (inputs,) = [n["inputs"] for n in page.prompt().values() if n["class_type"] == UPSCALE]
    assert (inputs["preset"], inputs["size"]) == ("custom", node["widgets_values"][0])
