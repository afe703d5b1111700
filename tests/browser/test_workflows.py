"""Every example workflow, opened and run in ComfyUI's own page."""

from __future__ import annotations

import pytest
from pack import EXAMPLES, NODES, OTHER_MODELS, PAINTED, WORKFLOWS, shrink

pytestmark = pytest.mark.long


def load(name):
    """Read a workflow."""
    from tools import workflows

    return workflows.load(WORKFLOWS / f"{name}.json")


def for_demo(name):
    """Read a workflow with the demo model in it, at small sizes: 4096 becomes 256."""
    from tools import workflows

    return workflows.with_demo_models(load(name), shrink=shrink(name))


def shape(workflow):
    """Reduce a workflow to what must survive opening and saving.

    What the nodes of subgraphs show, newer pages save inside, where it stands too.
    """
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    kinds = {subgraph["id"] for subgraph in subgraphs}
    nodes = {
        (node["id"], node["type"], node.get("mode"), str(node.get("widgets_values") or []))
        if node["type"] not in kinds
        else (node["id"], node["type"], node.get("mode"))
        for nodes in (workflow["nodes"], *(subgraph["nodes"] for subgraph in subgraphs))
        for node in nodes
    }
    ends = ("origin_id", "origin_slot", "target_id", "type")
    inside = {
        (subgraph["id"], *(link[end] for end in ends))
        for subgraph in subgraphs
        for link in subgraph["links"]
    }
    return nodes, sorted(map(tuple, workflow["links"])), inside


@pytest.mark.parametrize("name", EXAMPLES)
def test_opening_a_workflow_changes_nothing_and_offers_the_missing_models(comfy_page, name):
    workflow = load(name)
    comfy_page.open_workflow(workflow, name)
    message = comfy_page.missing_models()
    models = [model for node in workflow["nodes"] for model in node["properties"].get("models", ())]
    named = all(f"{model['directory']} / {model['name']}" in message for model in models)
    count = 6 if name in ("clear_flux_lora", "clear_flux_controlnet_upscale_4k") else 5
    count = 3 if name in OTHER_MODELS else count
    assert len(models) == count and (named or message.lower().startswith(f"{count} errors"))
    assert comfy_page.missing_types() == []
    assert shape(comfy_page.saved()) == shape(workflow)
    assert comfy_page.errors == []


@pytest.mark.parametrize("name", PAINTED)
def test_a_workflow_run_from_the_page_shows_its_picture_and_what_clear_did(comfy_page, name):
    comfy_page.open_workflow(for_demo(name), name)
    assert comfy_page.missing_types() == []
    comfy_page.run()
    assert comfy_page.dialog() == ""
    size = {
        "clear_flux_text_to_image": 64,
        "clear_flux_lora": 64,
        "clear_flux_seamless_texture": 64,
        "clear_flux_low_vram": 128,
        "clear_kontext": 128,
        "clear_flux_8k": 512,
        "clear_upscale_any_image": 512,
    }.get(name, 256)
    assert comfy_page.picture_sizes() == [(size, size)]
    assert "radius 8" in comfy_page.node_text("CLEARLoader")
    assert comfy_page.errors == []
    comfy_page.fit_view()


@pytest.mark.parametrize("name", PAINTED)
def test_the_page_and_our_tools_make_the_same_prompt_of_a_workflow(page_as_it_is, server, name):
    from tools import workflows

    workflow = for_demo(name)
    page_as_it_is.open_workflow(workflow, name)
    page = {
        node_id: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for node_id, node in page_as_it_is.prompt().items()
    }
    assert workflows.to_prompt(workflow, server.object_info()) == page


@pytest.mark.parametrize("node_id", NODES)
def test_the_info_button_of_a_node_opens_its_help_page(page_as_it_is, node_id):
    first = (WORKFLOWS.parent / "web" / "docs" / node_id / "en.md").read_text().splitlines()[0]
    help_text = page_as_it_is.help_of(node_id, first.removeprefix("# "))
    assert "Typical settings" in help_text or "Which file?" in help_text
