"""Runs as TOML files: every mistake is named, paths start at the file."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from clear_attention.distill.config import (
    ConfigError,
    Generation,
    Loss,
    Optimiser,
    RunConfig,
    StudentConfig,
    Training,
)
from clear_attention.distill.config_file import read, read_prompts

ROOT = Path(__file__).parents[2]
LEAST = 'output = "clear.safetensors"\nfolder = "run"\n'


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_two_settings_are_enough_and_relative_paths_start_at_the_file(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    config = read(write(LEAST + 'base_directory = "/elsewhere"\n'))
    assert config.output == tmp_path / "clear.safetensors"
    assert config.data_folder == tmp_path / "run" / "data"
    assert config.base_directory == Path("/elsewhere")
    assert config == RunConfig(config.output, config.folder, base_directory=Path("/elsewhere"))
    assert config.training == Training()


def test_tables_become_sections(write, tmp_path):
    text = (
        LEAST
        + '[generation]\nprompts = "p.txt"\nsizes_px = [[64, 96]]\n'
        + '[optimiser]\nname = "adamw"\nlearning_rate = 1\nbetas = [0.5, 0.75]\n'
        + '[loaders.model]\nnode = "UNETLoader"\nunet_name = "a.safetensors"\n'
    )
    config = read(write(text))
    assert config.generation.prompts == tmp_path / "p.txt"
    assert config.generation.sizes_px == ((64, 96),)
    assert (config.optimiser.learning_rate, config.optimiser.betas) == (1.0, (0.5, 0.75))
    assert config.loaders["model"] == {"node": "UNETLoader", "unet_name": "a.safetensors"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('output = "a"', "The setting folder is required."),
        (LEAST + "radius = 4", "Unknown setting radius; known are base, base_directory,"),
        (LEAST + "[student]\nradios = 4", "Unknown setting student.radios; known are backend,"),
        (LEAST + '[student]\nradius = "4"', "student.radius must be a valid integer, got '4'."),
        (LEAST + "[student]\nradius = true", "student.radius must be a valid integer, got True."),
        (LEAST + "[student]\nradius = 0", "student.radius must be at least 1, got 0."),
        (LEAST + '[student]\nbackend = "fast"', "student.backend must be one of auto,"),
        (LEAST + "student = 4", "The setting student must be a table, got 4."),
        (LEAST + "[optimiser]\nbetas = [0.9]", "The setting optimiser.betas.1 is required."),
        (
            LEAST + "[optimiser]\nbetas = [0, 0, 0]",
            "betas cannot be [0, 0, 0]: Tuple should have",
        ),
        (LEAST + "[training]\nseed = 0.5", "training.seed must be a valid integer, got 0.5."),
        (LEAST + "loaders.vae = 2024-05-01", "loaders.vae must be a table, got '2024-05-01'."),
        (LEAST + "comfyui = 1", "comfyui must be a valid string, got 1."),
        (LEAST + '[optimiser]\nname = "sgd"', "must be one of prodigy, adamw, got 'sgd'."),
        (LEAST + "[training]\nema_decay = 1.0", "training.ema_decay must be in [0, 1), got 1.0."),
        ("folder = ", "cannot be read as a TOML file"),
    ],
)
def test_a_mistake_is_one_sentence(write, text, sentence):
    with pytest.raises(ConfigError) as error:
        read(write(text))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_all_mistakes_are_named_at_once(write):
    with pytest.raises(ConfigError) as error:
        read(write(LEAST + "[training]\nsteps = 0.5\n[student]\nradios = 4\nrank = true"))
    for name in ("training.steps", "student.radios", "student.rank"):
        assert name in str(error.value)


def test_a_missing_package_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ImportError, match="needs pydantic: python -m pip install pydantic"):
        read(write(LEAST))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml cannot be read"):
        read(tmp_path / "nothing.toml")


def test_prompts_are_lines_with_text(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(" a red apple \n\n a blue sea\n", encoding="utf-8")
    assert read_prompts(path) == ["a red apple", "a blue sea"]
    path.write_text(" \n", encoding="utf-8")
    with pytest.raises(ConfigError, match="must have a prompt on at least one line"):
        read_prompts(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "nothing.txt")


def test_the_recipe_is_a_run_with_the_papers_settings():
    config = read(ROOT / "recipes" / "flux_dev_local_16.toml")
    assert (config.training.steps, config.training.batch) == (10_000, 32)
    assert (config.generation.samples, config.generation.sizes_px) == (10_000, ((1024, 1024),))
    assert (config.optimiser, config.loss) == (Optimiser(), Loss())
    assert set(config.loaders) == {"model", "clip", "vae"}


def test_the_documentation_has_every_setting_with_its_default():
    text = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    for section in (RunConfig, StudentConfig, Loss, Optimiser, Training, Generation):
        table = section_of(text, section)
        for entry in dataclasses.fields(section):
            if dataclasses.is_dataclass(entry.default):
                continue  # has a table of its own
            (default,) = re.findall(rf"^\| `{entry.name}` \| (.+?) \|", table, re.M)
            if type(entry.default) in (int, float):
                assert float(default.strip("`")) == entry.default, entry.name


def section_of(text: str, section: type) -> str:
    tables = {entry.type: entry.name for entry in dataclasses.fields(RunConfig)}
    name = section.__name__
    title = "The file itself" if section is RunConfig else f"`[{tables[name]}]`"
    return text.split(f"### {title}\n")[1].split("\n### ")[0]
