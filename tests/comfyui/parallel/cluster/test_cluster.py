"""One picture on several processes that Ray has placed: the picture of one."""

from __future__ import annotations

import pytest

LIMIT = 1e-6

pytestmark = pytest.mark.long


def prompt(*between, cluster=("local", 2), name="b", size=(26, 20), steps=2, file=""):
    """Return a prompt: a model, nodes in front of our node, our node, a sampler.

    Args:
        between: Class and inputs of nodes in front of ours.
        cluster: Inputs of ours, or None to leave it out.
    """
    nodes = {"load": ("NarrowFlux", {"name": name, "file": file})}
    last = "load"
    chain = [*between]
    if cluster is not None:
        chain.append(("CLEARCluster", dict(zip(("address", "gpus"), cluster, strict=True))))
    for index, (kind, inputs) in enumerate(chain):
        nodes[f"between {index}"] = (kind, {"model": [last, 0], **inputs})
        last = f"between {index}"
    nodes |= {
        "positive": ("SeededText", {"tokens": 40, "seed": 2}),
        "negative": ("SeededText", {"tokens": 56, "seed": 3}),
        "latent": ("ZeroLatent", {"height": size[0], "width": size[1], "batch": 1}),
        "sample": (
            "KSampler",
            {
                "model": [last, 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "latent_image": ["latent", 0],
                "seed": 4,
                "steps": steps,
                "cfg": 2.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        ),
        "keep": ("Keep", {"samples": ["sample", 0]}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


WINDOW = ("CLEARAttention", {"radius": 3})


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def test_a_cluster_paints_the_picture_of_one_device(execute, cluster):
    expected = execute(prompt(WINDOW, cluster=None))
    actual = execute(prompt(WINDOW))
    assert relative(actual, expected) < LIMIT
