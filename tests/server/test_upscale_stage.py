"""CLEAR Upscale's stage as a subgraph of the host's nodes, against the node itself."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from safetensors.torch import load_file

from tools.host import ROOT
from tools.server import ServerError

from .pictures import example, pixels, prompt_of

STAGE = "11"  # the first stage's node in the example
SAVED = {  # what is compared: how it is saved, and where the stage and the node give it
    "latents": ("SaveLatent", "samples", (":27", 0), ("", 1)),
    "images": ("SaveImage", "images", (":28", 0), ("", 0)),
}


def inside(workflow):
    """Return what is inside a workflow's subgraphs, but for ids and values."""
    for subgraph in workflow["definitions"]["subgraphs"]:
        first = min(node["id"] for node in subgraph["nodes"])
        nodes = [(node["id"] - first, node["type"]) for node in subgraph["nodes"]]
        links = [
            [end - first if end > 0 else end for end in (link["origin_id"], link["target_id"])]
            + [link["origin_slot"], link["target_slot"]]
            for link in subgraph["links"]
        ]
        sockets = [(s["name"], s["type"]) for s in subgraph["inputs"] + subgraph["outputs"]]
        yield nodes, links, sockets


@pytest.fixture
def both(server):
    """Run the subgraph and the node: ``both((width, height), **widgets)`` gives two of SAVED."""
    workflow = example("14 Inside CLEAR Upscale")
    (node,) = [node for node in workflow["nodes"] if str(node["id"]) == STAGE]
    shown = [socket["name"] for socket in node["inputs"] if "widget" in socket]

    def run(shape, **widgets):
        with Image.open(server.base / "input" / "example.png") as picture:
            picture.resize(shape).save(server.base / "input" / "stage.png")
        node["widgets_values"] = [widgets[name] for name in shown]
        prompt = prompt_of(server, workflow)
        prompt = {at: node for at, node in prompt.items() if not at.startswith(("12", "13"))}
        prompt["10"]["inputs"]["image"] = "stage.png"
        # What the node does by itself: a picture of few tokens keeps the model's scale.
        prompt[f"{STAGE}:23"]["inputs"]["proportional_attention"] = False
        untiled(prompt)
        sampler = prompt[f"{STAGE}:27"]["inputs"]
        changes = dict(denoise=str(widgets["denoise"]), stages="", vae_tile=0, trained_size=64)
        prompt["node"] = {
            "class_type": "CLEARUpscale",
            "inputs": {
                **{name: sampler[name] for name in ("positive", "negative")},
                **dict(model=["6", 0], vae=["4", 0], image=["10", 0], sampler_name="euler"),
                **dict(scheduler="simple", guidance_strength=0.0, guidance_decay=1.0),
                **widgets,
                **changes,
            },
        }
        for what, slots in SAVED.items():
            kind, socket, *places = slots
            for place, source in zip(places, (STAGE, "node"), strict=True):
                inputs = {socket: [source + place[0], place[1]], "filename_prefix": what}
                prompt[f"{what} {source}"] = {"class_type": kind, "inputs": inputs}
        outputs = server.run(prompt)["outputs"]
        names = [f"{what} {source}" for what in SAVED for source in (STAGE, "node")]
        files = [outputs[name][name.split()[0]][0]["filename"] for name in names]
        return [read(server.base / "output" / file) for file in files]

    return run


def read(file):
    """Read a saved latent or picture as it was saved."""
    if file.suffix == ".latent":
        return load_file(file)["latent_tensor"].numpy()
    return pixels(file)


def untiled(prompt):
    """Let the VAE take pictures as a whole."""
    for node in prompt.values():
        if node["class_type"].endswith("Tiled"):
            node["class_type"] = node["class_type"].removesuffix("Tiled")
            node["inputs"] = {key: value for key, value in node["inputs"].items()
                              if isinstance(value, list)}  # fmt: skip


def test_a_stage_gives_to_the_bit_what_the_node_gives_without_guidance(both):
    latent, expected, picture, other = both(
        (48, 64), size=128, denoise=0.7, seed=3, steps=20, cfg=1.5
    )
    assert latent.shape == (1, 16, 16, 12) and picture.shape == (128, 96, 3)
    assert (latent == expected).all()
    assert (picture == other).all()


def test_the_library_offers_the_stage_of_the_example(server):
    from tools import workflows

    example_of = workflows.load(workflows.FOLDER / "14 Inside CLEAR Upscale.json")
    (published,) = (ROOT / "subgraphs").glob("*.json")
    blueprint = workflows.load(published)
    first, second = inside(example_of)
    assert [first] == [second] == list(inside(blueprint))
    assert blueprint["nodes"][0]["type"] == blueprint["definitions"]["subgraphs"][0]["id"]
    try:
        offered = server.get("/global_subgraphs")
    except ServerError:
        pytest.skip("this ComfyUI takes no subgraphs from node packs: 0.3.75 does")
    ours = [(entry["name"], key) for key, entry in offered.items()
            if entry["info"]["node_pack"] == "custom_nodes.clear-attention"]  # fmt: skip
    ((name, key),) = ours
    assert name == "CLEAR Upscale Stage" == blueprint["definitions"]["subgraphs"][0]["name"]
    assert json.loads(server.get(f"/global_subgraphs/{key}")["data"]) == blueprint
