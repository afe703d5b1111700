"""Runs as TOML files: every mistake is named, paths start at the file."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from clear_attention.config.prompts import prompts_in, read_prompts
from clear_attention.distill.config import (
    ConfigError,
    Generation,
    Loss,
    Optimiser,
    Pictures,
    RunConfig,
    StudentConfig,
    Training,
)
from clear_attention.distill.config_file import read

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
        + '[optimiser]\nname = "adamw"\nlearning_rate = 0\nbetas = [0.5, 0.75]\n'
        + '[loaders.model]\nnode = "UNETLoader"\nunet_name = "a.safetensors"\n'
    )
    config = read(write(text))
    assert config.generation.prompts == tmp_path / "p.txt"
    assert config.generation.sizes_px == ((64, 96),)
    assert (config.optimiser.learning_rate, config.optimiser.betas) == (0.0, (0.5, 0.75))
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
        (LEAST + '[optimiser]\nname = "sgd"', "one of prodigy, adamw, adamw8bit, got 'sgd'."),
        (LEAST + "[training]\nema_decay = 1.0", "training.ema_decay must be in [0, 1), got 1.0."),
        ("folder = ", "cannot be read as a TOML file"),
        ("a = " + "[" * 9999, "cannot be read as a TOML file"),
        (LEAST + "[loss]\nflow = nan", "loss.flow must be at least 0 and finite, got nan."),
        (LEAST + "[loss]\nprediction = inf", "loss.prediction must be at least 0 and finite,"),
        (LEAST + "[loss]\nattention = -1", "loss.attention must be at least 0, got -1.0."),
        (LEAST + "[loss]\nflow = 0\nprediction = 0\nattention = 0", "must be above 0."),
        (LEAST + "[optimiser]\nlearning_rate = nan", "optimiser.learning_rate must be at least 0"),
        (LEAST + "[optimiser]\nclip_norm = inf", "clip_norm must be at least 0 and finite"),
        (LEAST + "[optimiser]\nbetas = [0.9, nan]", "optimiser.betas must be in [0, 1), got nan."),
        (LEAST + "[optimiser]\nbetas = [1, 0.9]", "optimiser.betas must be in [0, 1), got 1.0."),
        (LEAST + "[optimiser]\ncosine_to = -inf", "optimiser.cosine_to must be in [0, 1], got"),
        (
            LEAST + '[optimiser]\nname = "adamw"\nlearning_rate = 1',
            "learning_rate must be below 0.1 for adamw",
        ),
        (LEAST + "[training]\ntimestep_mean = nan", "timestep_mean must be a finite number, got"),
        (LEAST + "[training]\nguidance = inf", "training.guidance must be at least 0 and finite"),
        (LEAST + "[training]\nown_noise = 1.5", "own_noise must be in [0, 1], got 1.5."),
        (LEAST + "[training]\nema_decay = nan", "training.ema_decay must be in [0, 1), got nan."),
        (LEAST + "[training]\nseed = -1", "training.seed must be from 0 to 46116860184273879"),
        (LEAST + "[generation]\nseed = -1", "generation.seed must be from 0 to 4611686018427387"),
        (LEAST + "[generation]\nseed = 9223372036854775807", "generation.seed must be from 0 to"),
        (LEAST + "[generation]\ncfg = nan", "generation.cfg must be at least 0 and finite, got"),
        (LEAST + "[generation]\nsizes_px = []", "sizes_px must have at least one height and wid"),
        (LEAST + "[generation]\nsizes_px = [[64, 0]]", "must be positive multiples of 8, got [64"),
        (LEAST + "[generation]\nsizes_px = [[-64, 64]]", "must be positive multiples of 8"),
        (LEAST + "[generation]\nsizes_px = [[64, 1001]]", "must be positive multiples of 8"),
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
    with pytest.raises(ConfigError, match=r"nothing\.toml cannot be read as a TOML file: No such"):
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


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path, write):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa red apple\r\n\ufeff\r\na blue sea".encode())
    assert read_prompts(path) == ["a red apple", "a blue sea"]
    assert prompts_in("\ufeffa red apple", "it") == ["a red apple"]
    with pytest.raises(ConfigError, match="must have a prompt on at least one line"):
        prompts_in("\ufeff\n \ufeff \n\0", "it")
    assert read(write("\ufeff" + LEAST)).folder == tmp_path / "run"


@pytest.mark.parametrize(
    ("content", "line"), [("é".encode("utf-16"), 1), (b"a\nb\n\xe9\n", 3), (b"\x80", 1)]
)
def test_prompts_of_another_encoding_name_the_line(tmp_path, content, line):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"prompts\.txt must be UTF-8 text, line {line} has"):
        read_prompts(path)


def test_a_learning_rate_of_zero_is_that_of_the_optimiser():
    assert (Optimiser("adamw").rate, Optimiser("prodigy").rate) == (1e-4, 1.0)
    assert Optimiser("adamw", 1e-3).rate == 1e-3


def test_the_recipe_is_a_run_with_the_papers_settings():
    config = read(ROOT / "recipes" / "flux_dev_local_16.toml")
    assert (config.training.steps, config.training.batch) == (10_000, 32)
    assert (config.generation.samples, config.generation.sizes_px) == (10_000, ((1024, 1024),))
    assert (config.optimiser, config.loss) == (Optimiser(learning_rate=1.0), Loss())
    assert Optimiser().rate == config.optimiser.rate
    assert set(config.loaders) == {"model", "clip", "vae"}


def test_the_prompts_of_the_recipes_are_what_their_words_give():
    path = ROOT / "recipes" / "compose_prompts.py"
    spec = importlib.util.spec_from_file_location("compose_prompts", path)
    compose = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compose)
    prompts = read_prompts(ROOT / "recipes" / "prompts.txt")
    assert prompts == compose.compose_all()
    assert len(set(prompts)) == len(prompts) >= 1000
    assert not any("{" in prompt or "  " in prompt for prompt in prompts)


def test_the_documentation_has_every_setting_with_its_default():
    text = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    for section in (RunConfig, StudentConfig, Loss, Optimiser, Training, Generation, Pictures):
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
