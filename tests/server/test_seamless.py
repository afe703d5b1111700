"""CLEAR Seamless and its decoder in a real ComfyUI, over HTTP."""

from __future__ import annotations

from PIL import Image

from .pictures import prompt_of, saved_report, text_to_image


def test_a_seamless_picture_says_so_in_its_file(server):
    prompt = prompt_of(server, text_to_image(steps=2))
    at = {node["class_type"]: key for key, node in prompt.items()}
    sampler, decode = prompt[at["KSampler"]]["inputs"], prompt[at["VAEDecode"]]
    prompt["100"] = {
        "class_type": "CLEARSeamless",
        "inputs": {"model": sampler["model"], "direction": "horizontal"},
    }
    sampler["model"] = ["100", 0]
    decode["class_type"] = "CLEARSeamlessDecode"
    decode["inputs"] |= {"direction": "horizontal", "tile_size": 128}
    (path,) = server.images(server.run(prompt))
    with Image.open(path) as picture:
        assert picture.size == (128, 128)
    report = saved_report(path)
    assert "radius 8, wrapped around, 32 text + 8 x 8 image tokens" in report
    assert "seamless: window and positions wrap around after 8 columns" in report
