"""Prompts of the tests: a model, nodes in front of CLEAR Cluster, CLEAR Cluster, a sampler."""

from __future__ import annotations

WINDOW = ("CLEARAttention", {"radius": 3})


def prompt(
    *chain,
    between=(),
    cluster=("local", 2),
    name="b",
    log="",
    size=(26, 20),
    batch=1,
    steps=2,
    seed=4,
    hooked=False,
    controlled="",
):
    """Return a prompt as the host's API takes it.

    Args:
        chain: Class and inputs of nodes in front of ours.
        between: Likewise.
        cluster: Address and gpus of ours, or None to leave it out.
        name: Of the model.
        controlled: Name of the ControlNet of both prompts, or nothing.
        log: File to which each load adds its process.
    """
    nodes = {"load": ("NarrowFlux", {"name": name, "log": log})}
    last = "load"
    chain = [*chain, *between]
    if cluster is not None:
        chain.append(("CLEARCluster", dict(zip(("address", "gpus"), cluster, strict=True))))
    for index, (kind, inputs) in enumerate(chain):
        nodes[f"between {index}"] = (kind, {"model": [last, 0], **inputs})
        last = f"between {index}"
    nodes |= {
        "positive": ("SeededText", {"tokens": 40, "seed": 2, "hooked": hooked}),
        "negative": ("SeededText", {"tokens": 56, "seed": 3}),
        "latent": ("ZeroLatent", {"height": size[0], "width": size[1], "batch": batch}),
        "sample": (
            "KSampler",
            {
                "model": [last, 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "latent_image": ["latent", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 2.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        ),
        "keep": ("Keep", {"samples": ["sample", 0]}),
    }
    for name in ("positive", "negative") if controlled else ():
        inputs = {"conditioning": [name, 0], "name": controlled}
        nodes[f"controlled {name}"] = ("Controlled", inputs)
        nodes["sample"][1][name] = [f"controlled {name}", 0]
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def relative(actual, expected):
    """Return the root mean square of a difference, relative to what is expected."""
    return float((actual.double() - expected.double()).norm() / expected.double().norm())
