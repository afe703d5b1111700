"""A CLEAR file that is replaced under its name, and a node that is replaced by a later one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ..flux_runs import RADIUS, inputs

FILE = "clear_b_down4.safetensors"


@pytest.fixture
def replaceable(clear_folder, tmp_path, monkeypatch):
    """A models/clear folder whose one file can be replaced by another."""
    import folder_paths

    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "clear", ([str(tmp_path)], {".safetensors"})
    )

    def put(factor=1.0):
        """Write the golden file with its values multiplied, which leaves its size as it is."""
        tensors = load_file(clear_folder / FILE)
        values = {name: tensor * factor for name, tensor in tensors.items()}
        save_file(values, tmp_path / "mine.safetensors")

    put()
    return put


@pytest.fixture
def changed(node_classes, monkeypatch):
    """Return what the host compares of a node before it runs it again."""
    import execution
    from comfy_execution.graph import DynamicPrompt

    import nodes

    async def of(node_id, **given):
        prompt = {"1": {"class_type": node_id, "inputs": given}}
        return await execution.IsChangedCache("p", DynamicPrompt(prompt), None).get("1")

    for node_id, node in node_classes.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node_id, node)
    return lambda *args, **given: asyncio.run(of(*args, **given))


@pytest.mark.parametrize("node", ["CLEARLoader", "CLEARExtractLoRA"])
def test_a_file_replaced_under_its_name_makes_the_node_run_again(node, replaceable, changed):
    first = changed(node, clear_name="mine.safetensors")
    assert first and changed(node, clear_name="mine.safetensors") == first
    replaceable(1.25)
    assert changed(node, clear_name="mine.safetensors") != first


@pytest.mark.parametrize("node", ["CLEARLoader", "CLEARExtractLoRA"])
def test_a_file_that_is_missing_or_comes_from_another_node_is_no_failure(
    node, replaceable, changed
):
    assert changed(node, clear_name="missing.safetensors") == [""]
    assert changed(node, clear_name=["2", 0]) == [""]


def test_the_replaced_file_is_what_is_loaded(replaceable, flux_model, nodes, run):
    model = flux_model("b")
    before = run(nodes.CLEARLoader(model, "mine.safetensors", 1.0, RADIUS), **inputs())
    replaceable(1.25)
    after = run(nodes.CLEARLoader(model, "mine.safetensors", 1.0, RADIUS), **inputs())
    assert not torch.equal(before, after)


@pytest.fixture
def applied(node_classes, monkeypatch, product):
    """Run window nodes with an id each, and collect what each of them shows."""
    shown = {}
    report = product("comfyui.core.report")
    monkeypatch.setattr(report, "tell", lambda text, node_id, _: shown.update({node_id: text}))

    def apply(model, node, node_id, *args):
        monkeypatch.setattr(node_classes[node], "hidden", SimpleNamespace(unique_id=node_id))
        with torch.inference_mode():
            return node_classes[node].execute(model, *args).args[0]

    return SimpleNamespace(apply=apply, shown=shown)


def test_a_node_whose_window_was_replaced_shows_it(
    applied, flux_model, clear_folder, sample, lines
):
    model = applied.apply(flux_model("b"), "CLEARLoader", "1", FILE, 1.0, 6)
    model = applied.apply(model, "CLEARHighRes", "2", 10.0, True)
    model = applied.apply(model, "CLEARAttention", "3", RADIUS)
    sample(model, cfg=1.0)
    replaced = "the window of this node had no effect: a CLEAR node behind it has replaced it"
    assert applied.shown["1"].splitlines()[0] == replaced
    for node_id in ("2", "3"):
        assert replaced not in applied.shown[node_id]
    assert all("radius 4" in text for text in applied.shown.values())
    assert f"node 1: {replaced}" in lines()


def test_a_node_that_is_applied_again_is_not_replaced(applied, flux_model, sample, lines):
    model = flux_model("b")
    for node_id in ("1", "2", "1"):
        model = applied.apply(model, "CLEARAttention", node_id, RADIUS)
    sample(model, cfg=1.0)
    assert "replaced" in applied.shown["2"] and "replaced" not in applied.shown["1"]
    alone = applied.apply(flux_model("b"), "CLEARAttention", "4", RADIUS)
    sample(applied.apply(alone, "CLEARSeamless", "5", "both"), cfg=1.0)
    assert "replaced" not in applied.shown["4"] + applied.shown["5"]
