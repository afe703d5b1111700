"""The command in this process: what it goes on with, what it refuses, what it reports."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from ..distil_fixtures import WordsCLIP

SETTINGS = dict(
    loaders={name: {"node": name} for name in ("model", "clip", "vae")},
    vision={"CLIP": {"node": "vision"}},
    candidates=[{"radius": 2}, {"radius": 3, "dense_blocks": "double 0"}],
    sampling=dict(prompts="prompts.txt", steps=1, width=96, height=64, seed=7, cfg=2.0),
    sheets=1,
)
PROMPTS = ("a red apple", "a green tree", "a blue sea")


class Words(WordsCLIP):
    """The distiller's stand-in, which takes what is added to a prompt too."""

    def encode_from_tokens_scheduled(self, tokens, add_dict=None, **_):
        ((context, extra),) = super().encode_from_tokens_scheduled(tokens)
        return [[context, {**extra, **(add_dict or {})}]]


def colours(image):
    small = torch.nn.functional.adaptive_avg_pool2d(image.movedim(-1, 1), 2)
    return {"image_embeds": small.flatten(1)}


@pytest.fixture
def command(product, flux_model, vae, monkeypatch):
    """The host's side, whose loaders give the tests' models."""
    module = product("comfyui.compare.command")
    things = {
        "model": flux_model("b"),
        "clip": Words(64, pooled=True),
        "vae": vae,
        "vision": SimpleNamespace(encode_image=colours),
    }
    monkeypatch.setattr(module, "load_nodes", lambda: None)
    monkeypatch.setattr(module, "run_node", lambda loader: things[loader["node"]])
    monkeypatch.setattr(module, "StopOnSignal", lambda: SimpleNamespace(asked=lambda: False))
    return module


@pytest.fixture
def config(product, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), "utf-8")
    build = product("config.file").build
    tree = {**SETTINGS, "output": str(tmp_path / "out")}
    tree["sampling"] = SETTINGS["sampling"] | {"prompts": str(tmp_path / "prompts.txt")}
    made = build(json.loads(json.dumps(tree)), product("compare.config").CompareConfig)

    def with_count(count, **changes):
        sampling = dataclasses.replace(made.sampling, count=count)
        return dataclasses.replace(made, sampling=sampling, **changes)

    return with_count


def rows_of(config):
    return (config.output / "rows.csv").read_text("utf-8").splitlines()


def run(command, config):
    with torch.inference_mode():
        return command.run(config)


def test_a_longer_run_goes_on_and_gives_the_rows_of_one_in_one_piece(
    command, config, product, tmp_path
):
    assert run(command, config(1)) == 0
    first = rows_of(config(1))
    assert run(command, config(2)) == 0
    whole = config(2, output=tmp_path / "whole")
    assert run(command, whole) == 0
    assert rows_of(config(2))[: len(first)] == first
    read = product("compare.results").Results
    pieces, one = read(config(2)).read(), read(whole).read()
    assert [(each.name, each.picture, each.distance, each.prompt) for each in pieces] == [
        (each.name, each.picture, each.distance, each.prompt) for each in one
    ]
    assert {each.picture for each in one} == {"0: 7", "1: 8"}
    report = (whole.output / "report.md").read_text("utf-8")
    assert "2 prompts of `prompts.txt`" in report
    assert "CLIP distance" in report and "± " in report and "more than r = 2" in report
    assert len(list(whole.output.glob("*.png"))) == 1


def test_a_stopped_run_keeps_whole_prompts_only(command, config, monkeypatch):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 30  # within the second prompt

    monkeypatch.setattr(command, "StopOnSignal", lambda: SimpleNamespace(asked=stop))
    assert run(command, config(3)) == 1
    names = [row.split(",")[0] for row in rows_of(config(3))[1:]]
    assert names == ["0: 7"] * 4


def test_other_prompts_under_the_same_rows_are_refused(command, config, tmp_path):
    assert run(command, config(1)) == 0
    (tmp_path / "prompts.txt").write_text("a yellow house\na green tree", "utf-8")
    with pytest.raises(ValueError, match="Prompt 0 must be the one that the rows were measured"):
        run(command, config(2))


def test_a_first_prompt_behind_the_last_is_refused(command, config):
    far = config(0)
    sampling = dataclasses.replace(far.sampling, first=9)
    with pytest.raises(ValueError, match="first must be below the number of prompts, 3, got 9"):
        run(command, dataclasses.replace(far, sampling=sampling))
