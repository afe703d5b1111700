"""Reports find the pictures of their runs: signatures, expanded nodes, bounds; without a server."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest

SAMPLED = ["sampler", 0]
GRAPH = {
    "window": {"class_type": "CLEARAttention", "inputs": {"radius": 4}},
    "sampler": {"class_type": "KSampler", "inputs": {"model": ["window", 0], "seed": 1}},
    "save": {"class_type": "SaveImage", "inputs": {"images": SAMPLED}},
    "other": {"class_type": "SaveImage", "inputs": {"images": "no link"}},
}


@pytest.fixture
def graph():
    return copy.deepcopy(GRAPH)


@pytest.fixture
def prompts(product, node_classes, monkeypatch):
    """Return a class of prompts whose nodes run as the host runs them; they share a memory."""
    import comfy_execution.progress as progress
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.utils import CurrentNodeContext

    import nodes

    reports = product("comfyui.core.saved_reports").SavedReports(most=3)
    for name, node in node_classes.items():
        node.GET_SCHEMA()  # the host asks for it before it runs a node
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)

    class Prompt:
        def __init__(self, graph, name):
            self.graph, self.name = graph, name
            self.dynamic = DynamicPrompt(graph)
            self.registry = progress.ProgressRegistry(name, self.dynamic)
            monkeypatch.setattr(progress, "global_progress_registry", self.registry)
            reports.watch()

        def sample(self, *texts, node="sampler", shown_on="window"):
            self.registry.start_progress(node)
            with CurrentNodeContext(self.name, node):
                for text in texts:
                    reports.add(text, shown_on)

        def saved(self, node="save"):
            self.registry.start_progress(node)
            return self.graph["window"].get("_meta", {}).get("clear_attention")

    return SimpleNamespace(Prompt=Prompt)


def test_a_later_prompt_finds_the_report_of_a_run_that_it_does_not_repeat(prompts, graph):
    prompts.Prompt(copy.deepcopy(graph), "1").sample("radius 4")
    assert prompts.Prompt(graph, "2").saved() == "radius 4"


@pytest.mark.parametrize("change", ["seed", "radius", "file", "window's id", "kind"])
def test_another_run_has_another_report(change, prompts, graph):
    prompts.Prompt(copy.deepcopy(graph), "1").sample("radius 4")
    if change == "seed":
        graph["sampler"]["inputs"]["seed"] = 2
    elif change == "radius":
        graph["window"]["inputs"]["radius"] = 5
    elif change == "file":
        graph["window"]["is_changed"] = ["another fingerprint"]
    elif change == "kind":
        graph["sampler"]["class_type"] = "KSamplerAdvanced"
    else:  # our nodes are not idempotent: the host runs another one anew
        graph["also a window"] = copy.deepcopy(graph["window"])
        graph["sampler"]["inputs"]["model"][0] = "also a window"
    assert prompts.Prompt(graph, "2").saved() is None


def test_a_run_that_is_repeated_replaces_its_report_and_its_parts_are_joined(prompts, graph):
    prompts.Prompt(copy.deepcopy(graph), "1").sample("before")
    again = prompts.Prompt(graph, "2")
    again.sample("tile 1", "tile 2", "tile 1")
    assert again.saved() == "tile 1\ntile 2"


def test_a_node_behind_no_sampler_finds_no_report_not_even_one_that_came_in_a_file(prompts, graph):
    graph["window"]["_meta"] = {"title": "mine", "clear_attention": "of another picture"}
    prompt = prompts.Prompt(graph, "1")
    prompt.sample("radius 4")
    assert prompt.saved("other") is None
    assert graph["window"]["_meta"] == {"title": "mine"}
    assert prompt.saved() == "radius 4"


def test_nodes_that_another_node_expands_into_count_as_that_node(prompts, graph):
    prompt = prompts.Prompt(copy.deepcopy(graph), "1")
    inner = {"class_type": "KSampler", "inputs": {"model": ["window", 0]}}
    prompt.dynamic.add_ephemeral_node("sampler.0", inner, "sampler", "sampler")
    prompt.sample("radius 4", node="sampler.0")
    assert prompt.saved() == "radius 4"
    assert prompts.Prompt(graph, "2").saved() == "radius 4"


def test_the_oldest_reports_are_forgotten(prompts, graph):
    for seed in range(5):
        graph["sampler"]["inputs"]["seed"] = seed
        prompts.Prompt(copy.deepcopy(graph), str(seed)).sample(f"seed {seed}")
    found = {}
    for seed in range(5):
        graph["sampler"]["inputs"]["seed"] = seed
        found[seed] = prompts.Prompt(copy.deepcopy(graph), "later").saved()
    assert found == {0: None, 1: None, 2: "seed 2", 3: "seed 3", 4: "seed 4"}


def test_a_chain_of_thousands_of_nodes_and_links_to_nowhere_are_no_error(prompts, graph):
    for at in range(3000):
        source = [f"step {at - 1}", 0] if at else SAMPLED
        graph[f"step {at}"] = {"class_type": "Reroute", "inputs": {"x": source, "y": ["gone", 0]}}
    graph["save"]["inputs"]["images"] = ["step 2999", 0]
    prompt = prompts.Prompt(graph, "1")
    prompt.sample("radius 4")
    assert prompt.saved() == "radius 4"


def test_each_node_with_a_report_follows_prompts_in_which_it_is_cached(
    node_classes, product, monkeypatch
):
    from comfy_api.internal import first_real_override

    watched = []
    reports = product("comfyui.core.saved_reports").SAVED_REPORTS
    monkeypatch.setattr(reports, "watch", lambda: watched.append(True))
    schemas = {node: node.define_schema() for node in node_classes.values()}
    reported = [node for node, schema in schemas.items() if schema.not_idempotent]
    assert len(reported) >= 8
    for node in reported:
        ask = first_real_override(node, "fingerprint_inputs")
        assert ask is not None, node
        assert ask(model=None) == ask(model=None)
    assert len(watched) == 2 * len(reported)
