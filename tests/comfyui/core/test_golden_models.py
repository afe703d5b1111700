"""The authors' whole-model outputs, through the nodes in the real host."""

from __future__ import annotations

import pytest

from ..golden import MODEL_CASES, case_tensors, needs_high_resolution, within_tolerance

BACKENDS = ("reference", "masked", "tiled", "flex", "auto")


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        pytest.param(case, backend, id=f"{case['name']}-{backend}")
        for case in MODEL_CASES
        for backend in (BACKENDS if case["variant"] != "full" else ("dense",))
    ],
)
def test_nodes_reproduce_the_authors_model(case, backend, flux_model, nodes, clear_folder, run):
    model = flux_model(case["model"])
    if case["variant"] != "full":
        name = case["files"]["clear"]
        model = nodes.CLEARLoader(model, name, 1.0, case["window_size"], backend)
    if needs_high_resolution(case):
        model = nodes.CLEARHighRes(model, case["ntk_factor"], case["proportional"])
    tensors = case_tensors(case)
    velocity = run(model, **{name: tensors[name] for name in tensors if name != "out"})
    within_tolerance(velocity, tensors["out"], case["tolerance"])


@pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case["name"])
def test_every_plausible_mistake_is_larger_than_the_tolerance(case):
    assert min(case["if_wrong_max_abs"].values()) > 10 * case["tolerance"]["max_abs"]
