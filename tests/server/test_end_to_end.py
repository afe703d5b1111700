"""A real ComfyUI, asked over HTTP as the page asks it."""

from __future__ import annotations

import re
from urllib.parse import quote

import numpy as np
import pytest
from narrow_vae.places import LOADER
from pack import EXAMPLES, NODES, OTHER_MODELS, WORKFLOWS
from PIL import Image

from .pictures import (
    node,
    pixels,
    prompt_of,
    saved_report,
    text_to_image,
    without_clear,
)


def test_a_prompt_reports_its_progress_and_leaves_a_picture_that_says_what_clear_did(server):
    workflow, steps = text_to_image(steps=6), []
    node(workflow, LOADER)["type"] = "VAELoader"  # with the demo's own VAE
    prompt = prompt_of(server, workflow)
    entry = server.run(prompt, on_progress=lambda *step: steps.append(step))
    (path,) = server.images(entry)
    done = [done for _, done, _ in steps]  # newer hosts leave out steps that follow in a hurry
    assert len(done) > 1 and done == sorted(set(done)) and done[-1] == 6
    with Image.open(path) as picture:
        picture.verify()
        assert (picture.format, picture.size) == ("PNG", (128, 128))
    assert re.search(r"radius 8, 32 text \+ 8 x 8 image tokens", saved_report(path))


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_an_example_of_another_model_gives_each_node_what_it_needs(server, name):
    """All but the files of its models, and choices that this host does not have yet."""
    from tools import workflows

    workflow, info = workflows.load(WORKFLOWS / f"{name}.json"), server.object_info()
    version = server.get("/system_stats")["system"]["comfyui_version"]
    is_known = tuple(map(int, version.split("."))) >= OTHER_MODELS[name]
    files = {model["name"] for node in workflow["nodes"] for model in models_of(node)}
    for asked in workflows.to_prompt(workflow, info).values():
        inputs = info[asked["class_type"]]["input"]
        assert inputs["required"].keys() <= asked["inputs"].keys()
        for given, value in asked["inputs"].items():
            (kind, *options) = {**inputs["required"], **inputs.get("optional", {})}[given]
            choices = kind if isinstance(kind, list) else (options or [{}])[0].get("options", ())
            if choices and value not in files and (is_known or value != "krea2"):
                assert value in choices


def models_of(node):
    return node["properties"].get("models", ())


def test_after_an_interruption_the_same_prompt_gives_the_same_picture(server):
    from tools.server import ServerError

    prompt = prompt_of(server, text_to_image(seed=7))
    first = pixels(server.images(server.run(prompt))[0])
    slow = server.queue(prompt_of(server, text_to_image(seed=7, steps=1000)))
    with pytest.raises(ServerError, match="interrupted"):
        server.wait(slow, on_progress=lambda *_: server.interrupt())
    server.run(prompt_of(server, text_to_image(seed=8)))  # or the next would come from a cache
    again = server.run(prompt)
    assert sampler_of(prompt) not in cached_nodes(again), "nothing was tested: it did not run again"
    np.testing.assert_array_equal(pixels(server.images(again)[0]), first)


def test_a_damaged_file_fails_the_node_with_one_sentence(server):
    from tools.server import ServerError

    folder = server.base / "models" / "clear"
    good = (folder / "clear_demo_local_8.safetensors").read_bytes()
    (folder / "clear_local_8_cut_off.safetensors").write_bytes(good[: len(good) // 2])
    workflow = text_to_image()
    node(workflow, "CLEARLoader")["widgets_values"][0] = "clear_local_8_cut_off.safetensors"
    with pytest.raises(ServerError) as error:
        server.run(prompt_of(server, workflow))
    sentence = str(error.value).splitlines()[0]
    assert re.fullmatch(
        r"CLEARLoader \(node \d+\): clear_local_8_cut_off\.safetensors .*[^.]\.", sentence
    )


@pytest.mark.parametrize("way", ["removed", "bypassed", "strength 0"])
def test_without_the_node_the_picture_is_as_if_it_had_never_been_there(server, way):
    workflow = text_to_image()
    never = server.run(prompt_of(server, without_clear(workflow)))
    with_node = server.run(prompt_of(server, workflow))
    off = text_to_image()
    if way == "removed":
        off = without_clear(off)
    elif way == "bypassed":
        node(off, "CLEARLoader")["mode"] = 4
    else:
        node(off, "CLEARLoader")["widgets_values"][1] = 0.0
    after = server.run(prompt_of(server, off))
    sampler = str(node(off, "KSampler")["id"])
    assert sampler not in cached_nodes(after), "nothing was tested: it did not run again"
    assert str(node(off, "CLEARDemoUNETLoader")["id"]) in cached_nodes(after)
    before, between, now = (pixels(server.images(entry)[0]) for entry in (never, with_node, after))
    np.testing.assert_array_equal(now, before)
    assert (between != before).any()


def test_the_report_stays_with_its_node_when_an_equal_node_ran_before(server):
    server.run(prompt_of(server, text_to_image(seed=1)))
    again = prompt_of(server, text_to_image(seed=2))
    clear = next(at for at, node in again.items() if node["class_type"] == "CLEARLoader")
    again["200"] = again.pop(clear)
    for other in again.values():
        for name, value in other["inputs"].items():
            other["inputs"][name] = ["200", 0] if value == [clear, 0] else value
    (path,) = server.images(server.run(again))
    assert "radius 8" in saved_report(path)


@pytest.mark.parametrize("node_id", NODES)
def test_the_page_finds_a_help_page_for_each_node(server, node_id):
    text = fetch(server, f"/extensions/clear-attention/docs/{node_id}/en.md")
    assert text.startswith("# ")
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):  # the page puts this folder in front
        start = fetch(server, f"/extensions/clear-attention/docs/{picture}")[:20]
        assert "JFIF" in start or "PNG" in start


def test_the_template_browser_lists_the_example_workflows_with_pictures(server):
    assert sorted(server.get("/workflow_templates")["clear-attention"]) == EXAMPLES
    for name in EXAMPLES:
        fetch(server, f"/api/workflow_templates/clear-attention/{quote(name)}.jpg")


def sampler_of(prompt):
    """Find the id of the sampler."""
    return next(at for at, node in prompt.items() if node["class_type"] == "KSampler")


def cached_nodes(entry):
    """List the nodes that a run took from the cache."""
    messages = dict(entry["status"]["messages"])
    return messages["execution_cached"]["nodes"]


def fetch(server, path):
    """Fetch a file from the server as text, whatever its bytes."""
    import urllib.request

    from tools.patience import slowdown_by_load

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(server.url + path, timeout=60 * slowdown_by_load()) as answer:
        return answer.read().decode("utf-8", "replace")
