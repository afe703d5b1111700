"""The plan and the window preview in a workflow over HTTP."""

from __future__ import annotations

import re
import urllib.request

import pytest

from .pictures import pixels, prompt_of, saved_report, text_to_image


def test_a_picture_is_planned_painted_compared_and_drawn_upon(server):
    prompt = prompt_of(server, text_to_image())
    place = {node["class_type"]: at for at, node in prompt.items()}
    loader, decoded = [place["CLEARLoader"], 0], [place["VAEDecode"], 0]

    def add(at, kind, **inputs):
        required = server.object_info()[kind]["input"].get("required", {})
        defaults = {
            name: spec[1]["default"]
            for name, spec in required.items()
            if len(spec) > 1 and "default" in spec[1]
        }
        prompt[at] = {"class_type": kind, "inputs": defaults | inputs}

    add("plan", "CLEARPlan", model=loader, width=128, height=128, text_tokens=32, steps=4)
    prompt[place["KSampler"]]["inputs"]["model"] = ["plan", 2]
    add("plot", "SaveImage", images=["plan", 1], filename_prefix="plot")
    add("window", "CLEARWindowPreview", image=decoded, radius=4, pool_factor=4, x=0.1)
    add("drawn", "SaveImage", images=["window", 0], filename_prefix="drawn")
    add("told", "PreviewAny", source=["window", 1])
    entry = server.run(prompt)

    (plan,) = entry["outputs"]["plan"]["text"]
    assert "FLUX, 1 double + 4 single attentions of 2 heads x 128" in plan
    assert "128 x 128 pixels, batch 1: 32 text + 8 x 8 image tokens" in plan
    assert "Verdict: fits." in plan
    assert "8 x 8 tokens" in entry["outputs"]["told"]["text"][0]
    paths = {re.split("_|-", path.name)[0]: path for path in server.images(entry)}
    assert pixels(paths["plot"]).shape[1] > 1000
    painted = next(path for name, path in paths.items() if name not in ("plot", "drawn"))
    assert pixels(paths["drawn"]).shape == pixels(painted).shape == (128, 128, 3)
    assert "Plan and run, CLEAR r = 8:" in saved_report(painted)
    assert "Plan and run, CLEAR r = 8:" in server.log


@pytest.mark.parametrize("node_id", ["CLEARPlan", "CLEARWindowPreview"])
def test_the_help_page_has_its_picture(server, node_id):
    docs = f"{server.url}/extensions/clear-attention/docs"
    with urllib.request.urlopen(f"{docs}/{node_id}/en.md") as answer:
        text = answer.read().decode()
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    with urllib.request.urlopen(f"{docs}/{picture}") as answer:
        assert b"JFIF" in answer.read(20)
