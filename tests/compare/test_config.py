"""Comparisons as TOML files, and the folder that a stopped one goes on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from clear_attention.compare.__main__ import read
from clear_attention.compare.config import CompareConfig
from clear_attention.compare.measurement import Distance, Measurement
from clear_attention.compare.results import Results
from clear_attention.config.bounds import ConfigError

ROOT = Path(__file__).parents[2]
LOADERS = '[loaders]\nmodel = {node = "A"}\nclip = {node = "B"}\nvae = {node = "C"}\n'
LEAST = f'output = "out"\n{LOADERS}[[candidates]]\nradius = 8\n'


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def measured(picture, prompt="a cat", fault="", **embeddings):
    distance = Distance((0.1, 0.2, 0.3, 0.4), (1.0, 1.0, 1.0, 1.0), 0.01, 0.9, embeddings)
    return Measurement("r = 8", picture, None if fault else distance, 1.5, 0.25, fault, prompt)


def test_paths_start_at_the_file_and_the_rest_has_defaults(write, tmp_path):
    config = read(write(LEAST))
    assert config.output == tmp_path / "out"
    assert config.sampling.prompts == tmp_path / "prompts.txt"
    assert [each.title for each in config.candidates] == ["r = 8"]
    assert (config.sampling.steps, config.sampling.width) == (20, 1024)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LEAST + "radios = 4\n", "Unknown setting candidates.0.radios; known are .*radii, radius"),
        (LEAST + "[sampling]\nsteps = 0\n", r"sampling\.steps must be at least 1, got 0"),
        (LEAST + "[sampling]\npictures = 17\n", r"sampling\.pictures must be at most 16, got 17"),
        (LEAST + "[sampling]\nwidth = 100\n", "must be positive multiples of 8"),
        (LEAST + "[[candidates]]\nradius = 8\n", "different names, got 'r = 8' twice"),
        (
            LEAST + '[[candidates]]\nradius = 4\nname = "another seed"\n',
            "a reference's name|name of a",
        ),
        (LEAST + '[[candidates]]\nradius = 4\nradii = "x"\n', r"candidates\.radii must look like"),
        (LEAST + "[[candidates]]\nradius = 4\nend_percent = 0.0\n", "got 0 and 0"),
        (LEAST + "[[candidates]]\n", "must have a file or a radius, got neither"),
        (LEAST + '[[candidates]]\nfile = "a"\nradii = "double 0: 2"\n', "must not have radii"),
        (f'output = "out"\ncandidates = []\n{LOADERS}', "at least one table"),
        (LEAST.replace("vae", "ave"), r"need a table loaders\.vae"),
        ('output = "out"\n', "The setting candidates is required"),
    ],
)
def test_a_mistake_is_named(write, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read(write(text))


def test_the_recipe_is_read():
    config = read(ROOT / "recipes" / "flux_dev_compare.toml")
    assert [each.file for each in config.candidates][:2] == [
        "clear_local_8.safetensors",
        "clear_local_16.safetensors",
    ]
    assert list(config.vision) == ["CLIP", "DINO"]
    assert config.sampling.count == 500


@pytest.fixture
def config(write) -> CompareConfig:
    return read(write(LEAST + '[vision]\nCLIP = {node = "D"}\n'))


def test_rows_are_read_as_they_were_written(config):
    results = Results(config)
    assert results.open() == []
    first = [measured("0: 7", 'a "cat",\nand a dog', CLIP=0.5), measured("0: 8", fault="black")]
    results.add(first)
    results.add([measured("1: 9")])
    assert Results(config).open() == [*first, measured("1: 9")]
    assert (config.output / "rows.csv").read_text().startswith("picture,model,seconds,pairs,fault")


def test_rows_of_other_settings_are_refused_but_more_prompts_go_on(config):
    Results(config).open()
    more = dataclasses.replace(config.sampling, count=9)
    assert Results(dataclasses.replace(config, sampling=more, sheets=0)).open() == []
    steps = dataclasses.replace(config.sampling, steps=3)
    with pytest.raises(ConfigError, match="must be of these settings, got rows of others"):
        Results(dataclasses.replace(config, sampling=steps)).open()


def test_damaged_rows_are_named(config):
    results = Results(config)
    results.open()
    path = config.output / "rows.csv"
    path.write_text(path.read_text() + "0: 7,r = 8,many\n")
    with pytest.raises(ConfigError, match=r"rows\.csv is damaged .* remove its folder"):
        results.read()
