"""A saved picture carries the reports of the runs that made it, also of runs before its prompt."""

from __future__ import annotations

import copy
import re

import pytest

from .pictures import prompt_of, saved_report, text_to_image

FIRST = r"radius 8, 32 text \+ 8 x 8 image tokens"
SECOND = r"radius 8, 32 text \+ 10 x 10 image tokens"


@pytest.fixture(scope="module")
def painting(server):
    """A prompt that paints one picture in two steps and saves it, seeds never used before."""
    prompt = prompt_of(server, text_to_image(steps=2))
    seeds = iter(range(7000, 8000))

    def fresh():
        fresh_prompt = copy.deepcopy(prompt)
        fresh_prompt[one(prompt, "KSampler")]["inputs"]["seed"] = next(seeds)
        return fresh_prompt

    return fresh


@pytest.mark.parametrize("renumbered", [False, True], ids=["same sampler", "copied sampler"])
def test_a_picture_saved_from_a_cached_run_carries_its_report(server, painting, renumbered):
    prompt = painting()
    save, sampler = one(prompt, "SaveImage"), one(prompt, "KSampler")
    latent = prompt[sampler]["inputs"]["latent_image"][0]
    prompt[latent]["inputs"]["batch_size"] = 2
    previewed = copy.deepcopy(prompt)
    previewed[save] = {"class_type": "PreviewImage", "inputs": {"images": link(prompt, save)}}
    first = server.run(previewed)
    if renumbered:
        prompt["900"] = prompt.pop(sampler)
        prompt[one(prompt, "VAEDecode")]["inputs"]["samples"][0] = "900"
    second = server.run(prompt)
    cached = dict(second["status"]["messages"])["execution_cached"]["nodes"]
    assert {one(prompt, "KSampler"), one(prompt, "CLEARLoader")} <= set(cached)
    pictures = [*server.images(first), *server.images(second)]
    assert len(pictures) == 4
    assert all(len(re.findall(FIRST, saved_report(path))) == 1 for path in pictures)


@pytest.mark.parametrize("again", ["first", "second", "neither"])
def test_of_two_samplers_each_picture_carries_the_runs_behind_it(server, painting, again):
    prompt = with_second_sampler(painting())
    server.run(prompt)
    sampler, later = one(prompt, "KSampler"), "902"
    if again == "first":
        prompt[sampler]["inputs"]["seed"] += 5000
    elif again == "second":
        prompt[later]["inputs"]["seed"] += 5000
    for name in ("904", one(prompt, "SaveImage")):
        prompt[name]["inputs"]["filename_prefix"] = f"again_{again}_{name}"  # they save anew
    entry = server.run(prompt)
    cached = dict(entry["status"]["messages"])["execution_cached"]["nodes"]
    ran = {"first": set(), "second": {sampler}, "neither": {sampler, later}}[again]
    assert ran == {sampler, later} & set(cached)
    pictures = {path.name.split("_")[2]: path for path in server.images(entry)}
    of_first = saved_report(pictures[one(prompt, "SaveImage")])
    of_second = saved_report(pictures["904"])
    assert re.search(FIRST, of_first) and not re.search(SECOND, of_first)
    assert f"KSampler (node {sampler}):" in of_second and "KSampler (node 902):" in of_second
    assert len(re.findall(FIRST, of_second)) == len(re.findall(SECOND, of_second)) == 1


def test_a_picture_that_no_sampler_made_carries_no_report(server, painting):
    prompt = painting()
    prompt["905"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7},
    }
    prompt["906"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["905", 0], "filename_prefix": "plain"},
    }
    painted, plain = sorted(
        server.images(server.run(prompt)), key=lambda path: "plain" in str(path)
    )
    assert re.search(FIRST, saved_report(painted))
    assert saved_report(plain).strip() == ""


def with_second_sampler(prompt):
    """Add a second sampler on the enlarged latent of the first, and a node that saves it."""
    sampler, decode = one(prompt, "KSampler"), one(prompt, "VAEDecode")
    prompt["901"] = {
        "class_type": "LatentUpscale",
        "inputs": {
            "samples": [sampler, 0],
            **{"upscale_method": "bilinear", "width": 160, "height": 160, "crop": "disabled"},
        },
    }
    inputs = {**prompt[sampler]["inputs"], "latent_image": ["901", 0], "denoise": 0.5}
    prompt["902"] = {"class_type": "KSampler", "inputs": inputs}
    decoded = {**prompt[decode]["inputs"], "samples": ["902", 0]}
    prompt["903"] = {"class_type": "VAEDecode", "inputs": decoded}
    save = {"images": ["903", 0], "filename_prefix": "enlarged"}
    prompt["904"] = {"class_type": "SaveImage", "inputs": save}
    return prompt


def link(prompt, save):
    """Return what a node saves."""
    return prompt[save]["inputs"]["images"]


def one(prompt, kind):
    """Return the id of the first node of a type."""
    return next(at for at, node in prompt.items() if node["class_type"] == kind)
