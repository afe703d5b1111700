"""Every example workflow, opened and run in ComfyUI's own page."""

from __future__ import annotations

import numpy as np
import pytest
from narrow_vae.places import with_narrow_vae
from pack import EXAMPLES, NODES, OTHER_MODELS, PAINTED, WORKFLOWS, shrink
from PIL import Image

pytestmark = pytest.mark.long

FEWER = 3  # 6 steps in place of 20
PLACES_OF_STEPS = {
    "CLEARCompare": 3,
    "KSampler": 2,
    "BasicScheduler": 1,
    "SplitSigmas": 0,
    "CLEARUpscale": 5,
}
PLACE_IN_A_STAGE = 3  # CLEAR Upscale Stage is a subgraph, its type an id


def load(name):
    """Read a workflow."""
    from tools import workflows

    return workflows.load(WORKFLOWS / f"{name}.json")


def for_demo(name):
    """Read a workflow with demo model and narrow VAE, in few steps at small sizes: 4096 is 256."""
    from tools import workflows

    workflow = with_narrow_vae(workflows.with_demo_models(load(name), shrink=shrink(name)))
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    places = PLACES_OF_STEPS | {subgraph["id"]: PLACE_IN_A_STAGE for subgraph in subgraphs}
    painting = [node for node in workflow["nodes"] if node["type"] in places]
    assert painting, f"{name} must have a node whose steps are known, got none"
    for node in painting:
        node["widgets_values"][places[node["type"]]] //= FEWER
    return workflow


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
def test_opening_a_workflow_changes_nothing_and_offers_the_missing_models(page_as_it_is, name):
    workflow = load(name)
    page_as_it_is.open_workflow(workflow, name)
    message = page_as_it_is.missing_models()
    models = [model for node in workflow["nodes"] for model in node["properties"].get("models", ())]
    named = all(f"{model['directory']} / {model['name']}" in message for model in models)
    count = 6 if name in ("04 CLEAR with a LoRA", "12 Prompt to 4K with a ControlNet") else 5
    count = 3 if name in OTHER_MODELS else count
    assert len(models) == count and (named or message.lower().startswith(f"{count} errors"))
    assert page_as_it_is.missing_types() == []
    assert shape(page_as_it_is.saved()) == shape(workflow)
    assert page_as_it_is.overlaps() == []
    assert page_as_it_is.errors == []
    page_as_it_is.close_dialog()


@pytest.mark.parametrize("name", PAINTED)
def test_a_workflow_run_from_the_page_shows_its_picture_and_what_clear_did(
    page_as_it_is, server, name
):
    from tools import workflows

    page, workflow = page_as_it_is, for_demo(name)
    page.open_workflow(workflow, name)
    assert page.missing_types() == []
    queued = {
        node_id: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for node_id, node in page.prompt().items()
    }
    assert workflows.to_prompt(workflow, server.object_info()) == queued
    page.run()
    assert page.dialog() == ""
    size = {
        "01 Text to image at 2048 pixels": 128,
        "04 CLEAR with a LoRA": 64,
        "06 Seamless texture": 64,
        "03 2048 pixels on a small card": 128,
        "05 Edit a picture with Kontext": 128,
    }.get(name, 256)
    if name == "15 Compare CLEAR with full attention":
        ((width, height),) = page.picture_sizes()  # a sheet of two rows and four columns
        assert width > 1.5 * height
    else:
        assert page.picture_sizes() == [(size, size)]
    assert "radius 8" in page.node_text("CLEARLoader")
    assert page.errors == page.overlaps() == []
    with Image.open(server.last_pictures()[-1]) as picture:
        assert np.asarray(picture).std() > 5
        assert "clear_attention" in picture.info["prompt"]
    page.fit_view()


@pytest.mark.parametrize("node_id", NODES)
def test_the_info_button_of_a_node_opens_its_help_page(page_as_it_is, node_id):
    first = (WORKFLOWS.parent / "web" / "docs" / node_id / "en.md").read_text().splitlines()[0]
    help_text = page_as_it_is.help_of(node_id, first.removeprefix("# "))
    assert "Typical settings" in help_text or "Which file?" in help_text
