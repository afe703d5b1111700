"""The gate: distilling repairs on the demo's model what its README says, on prompts held out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
MARGIN = 0.15
"""Of the recovered share: the README's is of eight prompts, the gate's of two."""
LEFT = 0.75
"""Share of the window's error that a student leaves at most, on each prompt by itself."""
EDGE = 48  # of a latent: 24 x 24 tokens, the training size
PROMPTS = 2


def said():
    """Read the README's table of the training size: window -> error, student's, recovered."""
    text = (ROOT / "demo" / "README.md").read_text("utf-8").split("**The training size**")[1]
    rows = re.findall(r"\| (r = [^|]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) %", text.split("\n\n**")[0])
    return {window: (float(a), float(b), int(c) / 100) for window, a, b, c in rows}


@pytest.fixture(scope="module")
def measured(host, product):
    """The velocity errors of each window and of its student, prompt by prompt."""
    import folder_paths

    from clear_attention.config.prompts import read_prompts
    from demo.bench import SEED
    from demo.nodes.checkpoint import MODELS
    from demo.nodes.network import load_model
    from demo.nodes.text import DemoCLIP
    from demo.students import GUIDANCE, STUDENTS, TEACHING

    folder_paths.add_model_folder_path("clear", str(MODELS))
    painting, predictions = (product(f"comfyui.compare.{x}") for x in ("painting", "predictions"))
    contestants = product("comfyui.compare.contestants")
    settings, patch = product("comfyui.core.settings"), product("comfyui.core.patch")
    squared = product("compare.velocity").squared_difference
    model, clip = load_model(), DemoCLIP()
    models = {}
    for name, (radius, factor) in STUDENTS.items():
        local = settings.WindowSettings(radius, pool_factor=factor)
        behind = patch.with_window(model, local)
        models[radius, factor] = (behind, contestants.contestant(model, name).model)
    found = {window: ([], []) for window in models}
    for at, line in enumerate(read_prompts(TEACHING / "prompts.txt")[-8:][:PROMPTS]):
        tokens = clip.tokenize(line)
        prompt = clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": GUIDANCE})
        latent = torch.zeros(1, 16, EDGE, EDGE)
        task = painting.Task(prompt, prompt, latent, 16, 1.0, "euler", "simple")
        with torch.inference_mode():
            picture = painting.paint(model, task, SEED + at, lambda _: None).latent

            def of(each, task=task, picture=picture, seed=SEED + at):
                return predictions.velocities(each, task, picture, seed, lambda _: None)

            true = of(model)
            for window, pair in models.items():
                for errors, each in zip(found[window], pair, strict=True):
                    pairs = zip(of(each), true, strict=True)
                    errors.append(sum(float(squared(*levels)) for levels in pairs) / 4)
    return found


def test_each_student_recovers_what_the_readme_says(measured):
    from demo.students import window_name

    for window, (before, after) in measured.items():
        said_before, said_after, recovered = said()[window_name(*window)]
        assert 1 - sum(after) / sum(before) >= recovered - MARGIN
        # Two of the eight prompts, each of which is within a factor of two of the mean.
        assert said_before / 2 <= sum(before) / PROMPTS <= said_before * 2
        assert said_after / 2 <= sum(after) / PROMPTS <= said_after * 2


def test_a_student_is_nearer_to_its_teacher_on_every_prompt(measured):
    for before, after in measured.values():
        pairs = zip(before, after, strict=True)
        assert all(student < LEFT * window for window, student in pairs)


def test_a_larger_window_is_nearer(measured):
    for kind in (0, 1):
        assert sum(measured[8, 0][kind]) < sum(measured[4, 0][kind])
