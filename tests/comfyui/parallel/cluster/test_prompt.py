"""What workers get of a prompt: nodes above CLEAR Cluster, and nothing else."""

from __future__ import annotations

import pytest

from .prompts import WINDOW, prompt


@pytest.fixture
def cut(product):
    return product("comfyui.parallel.cluster.prompt")


def test_workers_get_all_nodes_above_ours_and_none_behind(cut):
    nodes = prompt(("Shifted", {"strength": 1.0}), WINDOW)
    assert set(cut.for_workers(nodes, "between 2")) == {
        *("load", "between 0", "between 1", "between 2")
    }


def test_workers_keep_what_another_node_of_ours_needs(cut):
    nodes = prompt(WINDOW)
    nodes["other"] = {"class_type": "NarrowFlux", "inputs": {"name": "a"}}
    nodes["second"] = {
        "class_type": "CLEARCluster",
        "inputs": {"model": ["other", 0], "address": "local", "gpus": 2},
    }
    assert {"other", "second", "load"} <= set(cut.for_workers(nodes, "between 1"))


def test_a_node_that_two_paths_lead_to_comes_once(cut):
    nodes = prompt(("Shifted", {"strength": ["load", 1]}))
    assert sorted(cut.for_workers(nodes, "between 1")) == ["between 0", "between 1", "load"]


def test_what_the_host_found_out_about_a_node_stays_here(cut):
    nodes = prompt(WINDOW)
    nodes["load"]["is_changed"] = [object()]
    assert set(cut.for_workers(nodes, "between 1")["load"]) == {"class_type", "inputs"}


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (["load", 0], True),
        (["load", "0"], False),
        ([3, 0], False),
        (["a", 0, 1], False),
        ("load", False),
        (["load", True], False),
    ],
)
def test_only_an_output_of_a_node_is_a_link(cut, value, is_one):
    assert cut.is_link(value) == is_one


def test_a_node_that_another_node_has_made_is_refused(cut):
    with pytest.raises(ValueError, match="must stand in the workflow itself, got node 7"):
        cut.for_workers(prompt(WINDOW), "7")
