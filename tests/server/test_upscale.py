"""The cascade in a real ComfyUI: a picture over HTTP, and what a second run does again."""

from __future__ import annotations

import pytest
from PIL import Image

from .pictures import example, pixels, prompt_of, saved_report


@pytest.fixture
def cascade(server):
    """The example's prompt, from 64 to 256 pixels, and the inputs of its node."""
    folder = server.base / "input"
    with Image.open(folder / "example.png") as picture:
        picture.resize((64, 48)).save(folder / "small.png")
    prompt = prompt_of(server, example("02 Any picture to 4K"))
    (load,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "LoadImage"]
    (inputs,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "CLEARUpscale"]
    load["image"] = "small.png"
    inputs |= dict(size=256, steps=6, denoise="0.5, 0.5", vae_tile=128, trained_size=64)
    inputs["preset"] = "custom"
    return prompt, inputs


def test_the_example_enlarges_and_says_what_it_did(server, cascade):
    prompt, inputs = cascade
    inputs["seed"] = 11
    steps = []
    entry = server.run(prompt, on_progress=lambda _, *step: steps.append(step))
    (path,) = server.images(entry)
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (256, 192))
    assert pixels(path).std() > 5
    # Three steps and a move each for encoding and decoding; the second stage counts fourfold.
    assert steps[-1] == (25, 25)
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    report = saved_report(path)
    assert "stage 1 of 2, 128 x 96, the last 3 of 6 steps, ntk_factor 10" in report
    assert "stage 2 of 2, 256 x 192, the last 3 of 6 steps" in report


def test_a_changed_last_stage_redoes_only_that_one(server, cascade):
    prompt, inputs = cascade
    inputs["seed"] = 12
    server.run(prompt)
    inputs["denoise"] = "0.5, 0.8"
    steps = []
    (path,) = server.images(server.run(prompt, on_progress=lambda _, *step: steps.append(step)))
    assert "stage 1 of 2, 128 x 96, kept from an earlier run" in saved_report(path)
    assert "stage 2 of 2, 256 x 192, the last 5 of 6 steps" in saved_report(path)
    assert steps[0][0] >= 5  # the first stage counts as done at once
    inputs["size"] = 128
    (path,) = server.images(server.run(prompt))
    assert pixels(path).shape == (96, 128, 3)
    assert "stage 1 of 1, 128 x 96, kept from an earlier run" in saved_report(path)


def test_a_stopped_cascade_goes_on_after_its_last_finished_stage(server, cascade):
    from tools.server import ServerError

    prompt, inputs = cascade
    inputs |= dict(seed=13, steps=40)

    def stop_in_the_second_stage(_, done, of):
        if done > 24:
            server.interrupt()

    with pytest.raises(ServerError, match="was interrupted"):
        server.run(prompt, on_progress=stop_in_the_second_stage)
    (path,) = server.images(server.run(prompt))
    assert "stage 1 of 2, 128 x 96, kept from an earlier run" in saved_report(path)


def test_a_mistake_is_one_sentence_on_the_node(server, cascade):
    from tools.server import ServerError

    prompt, inputs = cascade
    (load,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "LoadImage"]
    load["image"] = "example.png"
    inputs["size"] = 64
    with pytest.raises(ServerError) as error:
        server.run(prompt)
    sentence = str(error.value).splitlines()[0]
    assert sentence.startswith("CLEARUpscale (node 11): size must be at least the picture's longer")
