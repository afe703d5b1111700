"""Mistakes that are found before the first picture is painted, and a rehearsal that is stopped."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from clear_attention.distill.config import Pictures
from clear_attention.distill.data.shards import ShardFolder
from clear_attention.distill.workers.lock import held

from ..distil_fixtures import WIDTHS, WordsCLIP, config, samples

PROMPTS = ["one two", "three"]


@pytest.fixture
def distil(teacher: Any):
    """Start a run on the narrow teacher; what it says is listed."""
    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher

    def start(settings: Any, should_stop: Any = lambda: False) -> tuple[bool, list[str]]:
        said: list[str] = []
        watcher = Watcher(should_stop=should_stop, message=said.append)
        with torch.inference_mode():
            done = distil(teacher("b"), WordsCLIP(WIDTHS["b"]), settings, PROMPTS, watcher)
        return done, said

    return start


def changed(run: Any, **training: Any) -> Any:
    return dataclasses.replace(run, training=dataclasses.replace(run.training, **training))


def test_patience_without_pictures_to_validate_on_is_refused(distil, tmp_path):
    run = config(tmp_path, "b")
    alone = dataclasses.replace(run.generation, held_out_samples=0)
    impatient = changed(dataclasses.replace(run, generation=alone), patience=2)
    with pytest.raises(ValueError, match="patience needs pictures to validate on"):
        distil(impatient)
    assert not run.data_folder.exists()


def test_patience_counts_only_what_will_be_held_out(host, teacher, tmp_path):
    from clear_attention.comfyui.distill.checks import require_possible

    run = changed(config(tmp_path, "b"), patience=2)
    folder = dataclasses.replace(run, pictures=Pictures(tmp_path, held_out=0))
    model, one = teacher("b"), Pictures(tmp_path, held_out=1)
    # Nothing is painted without prompts, whatever held_out_samples is.
    for nothing in (run, folder, dataclasses.replace(run, pictures=Pictures(held_out=1))):
        with pytest.raises(ValueError, match="patience needs pictures to validate on"):
            require_possible(model, nothing, [])
    require_possible(model, folder, PROMPTS)
    require_possible(model, dataclasses.replace(run, pictures=one), [])
    (run.data_folder / "held_out").mkdir(parents=True)
    ShardFolder(run.data_folder / "held_out", {}).add(samples("b"))
    require_possible(model, run, [])


def test_a_folder_in_the_place_of_the_file_is_refused(distil, tmp_path):
    run = config(tmp_path, "b")
    run.output.mkdir(parents=True)
    with pytest.raises(ValueError, match="output must be a file, got the folder"):
        distil(run)
    assert not run.data_folder.exists()


@pytest.mark.parametrize("name", ["output", "folder"])
def test_a_folder_that_cannot_be_made_is_refused(name, distil, tmp_path):
    (tmp_path / "file").touch()
    run = config(tmp_path, "b")
    run = dataclasses.replace(run, **{name: tmp_path / "file" / "sub" / "mine.safetensors"})
    with pytest.raises(
        ValueError, match=rf"{name} must be one into which .*Not a directory\): take"
    ):
        distil(dataclasses.replace(run, data=tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_other_held_out_prompts_are_refused_before_more_is_painted(distil, tmp_path):
    run = config(tmp_path, "b")
    painted = run.data_folder / "held_out"
    painted.mkdir(parents=True)
    ShardFolder(painted, {"prompts": "others"}).adopt([])
    with pytest.raises(ValueError, match=r"held_out was made with other settings: .*prompts was"):
        distil(run)
    assert not (run.data_folder / "train").exists()


def test_two_runs_at_once_are_refused(distil, tmp_path):
    run = config(tmp_path, "b")
    for folder, doing in ((run.folder, "trains"), (run.data_folder, "makes data")):
        folder.mkdir(parents=True)
        in_use = f"{folder.name} is in use, another run {doing} there"
        with held(folder, doing), pytest.raises(ValueError, match=in_use):
            distil(run)
    assert not list(run.folder.rglob("*.safetensors"))


def test_a_state_of_other_settings_or_a_damaged_one_is_refused_before_more_is_painted(
    distil, tmp_path
):
    run = config(tmp_path, "b")
    done, said = distil(run)
    assert done and "rehearsing" in said[0] and "this run will take at most about" in said[1]
    assert "The rehearsal took " in said[1]
    painted = len(list(run.data_folder.rglob("*.safetensors")))
    with held(run.data_folder, "makes data"):
        assert distil(run)[0]  # several may learn from data that is there
    more = dataclasses.replace(run.generation, samples=run.generation.samples + 4)
    longer = dataclasses.replace(run, generation=more)
    with pytest.raises(ValueError, match=r"training\.seed was 0 and is now 1"):
        distil(changed(longer, seed=1))
    both = dataclasses.replace(longer, pictures=Pictures(tmp_path))
    with pytest.raises(ValueError, match="from painted pictures, and this run has painted"):
        distil(both)
    (state,) = run.folder.glob("state-*.safetensors")
    state.write_bytes(state.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"state-\d+\.safetensors is damaged"):
        distil(longer)
    assert len(list(run.data_folder.rglob("*.safetensors"))) == painted


@pytest.mark.parametrize("passes", range(0, 8, 3))
def test_a_rehearsal_that_is_stopped_tells_nothing_and_paints_nothing(distil, tmp_path, passes):
    run = changed(config(tmp_path, "b"), steps=1000)
    asked = iter(range(1000))
    done, said = distil(run, lambda: next(asked) >= passes)
    assert not done
    assert len(said) == 1 and "rehearsing" in said[0]
    assert not list(run.data_folder.rglob("train/*.safetensors"))
