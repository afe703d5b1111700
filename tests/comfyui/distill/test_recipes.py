"""The recipes: runs that the host can start, each for the card that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from clear_attention.config.prompts import read_prompts
from clear_attention.distill.config_file import read

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[3] / "recipes").glob("*.toml")
    if not path.stem.endswith("_compare")
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_nodes_and_inputs_that_the_host_has(path: Path, host):
    from nodes import NODE_CLASS_MAPPINGS

    config = read(path)
    assert set(config.loaders) == {"model", "clip", "vae"}
    for loader in config.loaders.values():
        given = dict(loader)
        inputs = NODE_CLASS_MAPPINGS[given.pop("node")].INPUT_TYPES()
        assert set(inputs["required"]) <= set(given)
        known = {**inputs["required"], **inputs.get("optional", {})}
        for name, value in given.items():
            choices = known[name][0]
            assert value in choices or name.endswith("_name") or "_name" in name, (name, value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loses_nothing_and_validates_as_it_trains(path: Path):
    config = read(path)
    assert config.training.gradient_checkpointing
    assert config.training.batch % config.training.accumulate == 0
    assert config.training.validate_every % config.training.save_every == 0
    prompts = read_prompts(config.generation.prompts)
    assert len(prompts) > config.generation.held_out >= config.generation.held_out_samples > 0
    assert config.optimiser.betas == (0.9, 0.999)  # as in the authors' script
    assert config.output.stem.endswith(path.stem.removesuffix("_local_16")) or path.stem in (
        config.output.stem
    )
