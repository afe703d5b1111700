"""What people see of a node before they use it: how it is found, folded and filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pack import EXAMPLES, WORKFLOWS

TYPED = {
    "CLEARLoader": ("flux 8k", "local attention", "low vram"),
    "CLEARAttention": ("sparse attention", "linear attention", "8k"),
    "CLEARUpscale": ("upscale 4k", "hires fix", "add detail"),
    "CLEARLowMemory": ("out of memory", "low vram"),
    "CLEARSeamless": ("tileable", "seamless texture"),
    "CLEARPlan": ("will it fit",),
}
CATEGORIES = {
    "CLEARUpscale": "image/upscaling",
    "CLEARDistill": "model/training",
    "CLEARPlan": "model/patch/CLEAR/measure",
    "CLEARLoader": "model/patch/CLEAR",
}
# The widgets of version 0.1's first workflows, by whose places their values are saved.
FIRST_WIDGETS = {
    "CLEARLoader": "clear_name strength radius backend",
    "CLEARAttention": (
        "radius pool_factor start_percent end_percent dense_blocks min_tokens backend"
    ),
    "CLEARHighRes": "ntk_factor proportional_attention",
    "CLEARSeamless": "direction",
    "CLEARSeamlessDecode": "direction tile_size",
    "CLEARControlNet": "radius every ntk_factor backend",
    "CLEARUpscale": (
        "size stages denoise seed steps cfg sampler_name scheduler guidance_strength "
        "guidance_decay trained_size vae_tile"
    ),
    "CLEARLowMemory": "slice_tokens",
    "CLEARParallel": "devices shares",
    "CLEARParallelDecode": "devices tile_size overlap",
    "CLEARCluster": "address gpus",
    "CLEARPlan": "width height radius pool_factor text_tokens batch_size steps",
    "CLEARWindowPreview": "radius pool_factor x y width height direction token_px",
    "CLEARLocality": "radius share at_percent queries seed",
    "CLEARCompare": "seed pictures steps cfg sampler_name scheduler",
    "CLEARDistill": (
        "prompts name radius pool_factor rank steps batch samples width height optimiser "
        "learning_rate guidance cfg seed"
    ),
    "CLEARExtractLoRA": "clear_name rank name radius",
}
# Heights on the classic canvas: of a title, of nodes without a report, of four lines of one.
TITLE_PX, REPORT_PX = 30, 112
BARE_PX = {"CLEARLoader": 142, "CLEARAttention": 210, "CLEARHighRes": 74, "CLEARLowMemory": 50}


@pytest.fixture
def shown(node_classes):
    """What the host tells the page of a node."""
    return lambda kind: vars(node_classes[kind].GET_SCHEMA().get_v1_info(node_classes[kind]))


def inputs_of(info):
    """Return the settings of a node's inputs by name, in the page's order."""
    groups = (info["input"].get(group, {}) for group in ("required", "optional"))
    return {name: (given[0], (*given, {})[1]) for group in groups for name, given in group.items()}


def is_widget(kind):
    return isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def newer(host):
    """Tell whether the host has advanced inputs and other names of nodes."""
    return "search_aliases" in (host / "comfy_api" / "latest" / "_io.py").read_text("utf-8")


@pytest.mark.parametrize("kind", TYPED)
def test_a_node_is_found_by_what_people_type(shown, host, kind):
    found = shown(kind).get("search_aliases")
    assert found is None if not newer(host) else set(TYPED[kind]) <= set(found)


@pytest.mark.parametrize("kind", CATEGORIES)
def test_a_node_lies_where_people_look_for_it(shown, kind):
    assert shown(kind)["category"] == CATEGORIES[kind]


def test_upscale_shows_few_inputs_and_folds_the_others_where_the_host_can(shown, host):
    inputs = inputs_of(shown("CLEARUpscale"))
    open_ones = [
        name
        for name, (kind, settings) in inputs.items()
        if is_widget(kind) and not settings.get("advanced")
    ]
    few = ["size", "denoise", "seed", "steps", "cfg", "preset"]
    assert open_ones == few if newer(host) else open_ones[:2] == ["size", "stages"]


@pytest.mark.parametrize("kind", FIRST_WIDGETS)
def test_the_places_of_saved_values_never_change(shown, kind):
    first = FIRST_WIDGETS[kind].split()
    inputs = inputs_of(shown(kind))
    widgets = [name for name, (kind, _) in inputs.items() if is_widget(kind)]
    assert widgets[: len(first)] == first
    for name in widgets[len(first) :]:
        assert name in shown(kind)["input"]["optional"] and "default" in inputs[name][1]


def test_every_number_says_its_bounds_and_its_default_lies_on_a_step(node_classes, shown):
    for kind in node_classes:
        for name, (type_, settings) in inputs_of(shown(kind)).items():
            if type_ not in ("INT", "FLOAT"):
                continue
            assert settings["min"] <= settings["default"] <= settings["max"], (kind, name)
            step = settings.get("step", 1)
            steps = (settings["default"] - settings["min"]) / step
            assert type_ == "FLOAT" or settings["min"] == 1 or steps == round(steps), (kind, name)


def test_a_saved_workflow_without_a_preset_takes_the_neutral_one(shown):
    from tools import workflows

    node = {"widgets_values": [4096, "", "0.6", 42, "fixed", 20, 1, "euler", "simple", 1, 1, 0, 0]}
    values = dict(workflows.widget_values(node, shown("CLEARUpscale")))
    assert (values["denoise"], values["vae_tile"], values["preset"]) == ("0.6", 0, "custom")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_values_of_an_example_are_those_that_its_nodes_have(name, node_classes, shown):
    workflow = json.loads(Path(WORKFLOWS / f"{name}.json").read_text("utf-8"))
    for node in workflow["nodes"]:
        if node["type"] in node_classes:
            widgets = inputs_of(shown(node["type"])).values()
            pages_own = sum(bool(each.get("control_after_generate")) for _, each in widgets)
            count = sum(is_widget(kind) for kind, _ in widgets) + pages_own
            assert len(node["widgets_values"]) == count, node["type"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_node_of_an_example_lies_over_another(name):
    workflow = json.loads(Path(WORKFLOWS / f"{name}.json").read_text("utf-8"))
    boxes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]]
    for at, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[at + 1 :]:
            apart = x + width <= left or left + wide <= x
            assert apart or y + height <= top - TITLE_PX or top + high <= y - TITLE_PX


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_group_of_an_example_lies_over_another(name):
    workflow = json.loads(Path(WORKFLOWS / f"{name}.json").read_text("utf-8"))
    boxes = [group["bounding"] for group in workflow["groups"]]
    for at, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[at + 1 :]:
            apart = x + width <= left or left + wide <= x
            assert apart or y + height <= top or top + high <= y


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_node_of_an_example_lies_inside_a_group(name):
    workflow = json.loads(Path(WORKFLOWS / f"{name}.json").read_text("utf-8"))
    groups = [group["bounding"] for group in workflow["groups"]]
    for node in workflow["nodes"]:
        (x, y), (wide, high) = node["pos"], node["size"]
        inside = [
            left <= x and x + wide <= left + width
            and top <= y - TITLE_PX and y + high <= top + height
            for left, top, width, height in groups
        ]  # fmt: skip
        assert any(inside) or node["type"] == "MarkdownNote", node["type"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_node_of_an_example_has_room_for_its_report(name):
    workflow = json.loads(Path(WORKFLOWS / f"{name}.json").read_text("utf-8"))
    for node in workflow["nodes"]:
        bare = BARE_PX.get(node["type"])
        assert bare is None or node["size"][1] >= bare + REPORT_PX, node["type"]
