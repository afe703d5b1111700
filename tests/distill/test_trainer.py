"""The training loop: it learns, resumes to the bit, stops."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parent))

import replay
import run_toy
import toy

from clear_attention.distill import log, state
from clear_attention.distill.config import StudentConfig
from clear_attention.distill.data.shards import ShardFolder
from clear_attention.distill.identity import INDEPENDENT, LATER
from clear_attention.distill.trainer import Diverged

HERE = Path(__file__).parent
STUDENTS = {
    "whole": StudentConfig(radius=2),
    "pooled": StudentConfig(radius=2, pool_factor=2),
    "low rank": StudentConfig(radius=2, rank=3),
    "radii": StudentConfig(radius=2, radii="single 0: 3"),
}


def losses(folder: Path, kind: str, name: str) -> list[float]:
    return [value for _, k, n, value in log.read(folder / "run") if (k, n) == (kind, name)]


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS)
def test_training_brings_the_student_closer_to_its_teacher(student: StudentConfig, tmp_path: Path):
    training = dataclasses.replace(toy.TRAINING, steps=80, validate_every=40)
    trainer = toy.trainer(tmp_path, training, student)
    before = trainer.validate()
    assert trainer.run()
    after = trainer.validate()
    assert after["prediction"] < 0.6 * before["prediction"]
    assert losses(tmp_path, "held_out", "prediction")[-1] == pytest.approx(after["prediction"])


def test_the_student_starts_as_the_teacher_behind_a_window(tmp_path: Path):
    wide = toy.trainer(tmp_path / "wide", student=StudentConfig(radius=20)).validate()
    local = toy.trainer(tmp_path / "local").validate()
    assert wide["prediction"] == pytest.approx(0, abs=1e-10)
    assert wide["attention"] == pytest.approx(0, abs=1e-10)
    assert local["prediction"] > 1e-5


def test_only_the_student_is_trained(tmp_path: Path):
    trainer = toy.trainer(tmp_path)
    network = trainer.task.denoiser.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer.run()
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(name.startswith("student.") for name in trainer.parameters)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("optimiser", ["adamw", "prodigy"])
def test_a_stopped_run_goes_on_to_the_same_weights(optimiser: str, tmp_path: Path):
    settings = dataclasses.replace(
        toy.ADAMW, name=optimiser, learning_rate=1.0 if optimiser == "prodigy" else 1e-2
    )
    training = dataclasses.replace(toy.TRAINING, ema_decay=0.9)
    straight = toy.trainer(tmp_path / "straight", training, optimiser=settings)
    assert straight.run()
    first = toy.trainer(tmp_path / "stopped", training, optimiser=settings)
    assert not first.run(should_stop=lambda: first.step == 5)
    second = toy.trainer(tmp_path / "stopped", training, optimiser=settings)
    assert second.resume() == 5
    assert second.run()
    for name, parameter in straight.parameters.items():
        assert torch.equal(parameter, second.parameters[name]), name
        assert torch.equal(straight.average[name], second.average[name]), name
    steps = [
        step
        for step, kind, name, _ in log.read(tmp_path / "stopped" / "run")
        if (kind, name) == ("train", "loss")
    ]
    assert steps == list(range(1, 13))


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, capsys):
    command = [sys.executable, str(HERE / "run_toy.py"), "12", "0.2", str(tmp_path / "killed")]
    victim = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.strip() == "7":
            os.kill(victim.pid, signal.SIGKILL)
            break
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    for folder in ("killed", "straight"):
        run_toy.train(tmp_path / folder, 12, 0)
    begun = [line for line in capsys.readouterr().out.splitlines() if line.startswith("from")]
    assert begun == ["from 6", "from 0"]  # states are written every third step
    names = {
        folder: state.states(tmp_path / folder / "run")[-1] for folder in ("straight", "killed")
    }
    one, other = (load_file(path) for path in names.values())
    assert names["straight"].name == names["killed"].name == "state-0000012.safetensors"
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_in_parts_gives_the_same_update(tmp_path: Path):
    whole = dataclasses.replace(toy.TRAINING, steps=1)
    parts = toy.trainer(tmp_path / "parts", dataclasses.replace(whole, accumulate=4))
    recorded = replay.record(parts)
    replay.replay(recorded, *(toy.trainer(tmp_path / name, whole) for name in ("whole", "exact")))


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path):
    trainer = toy.trainer(tmp_path)
    trainer.run(should_stop=lambda: trainer.step == 4)
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    trainer.task.denoiser.network.out.bias.data[:] = torch.nan
    with pytest.raises(Diverged, match=r"step 4: .*not finite.*state-0000004\.safetensors"):
        trainer.run()
    assert all(torch.equal(p, before[name]) for name, p in trainer.parameters.items())
    assert [path.name for path in state.states(tmp_path / "run")][-1] == "state-0000004.safetensors"


def break_after(trainer, step: int, damage) -> None:
    """Damage what an update at a step has left, as one does that overflows."""

    def observe(done: int, values: object) -> None:
        if done == step:
            with torch.no_grad():
                damage(trainer)

    trainer.run(observe)


def break_weight(trainer) -> None:
    next(iter(trainer.parameters.values())).view(-1)[3] = torch.inf


def break_average(trainer) -> None:
    next(iter(trainer.average.values())).view(-1)[3] = torch.nan


def break_memory(trainer) -> None:
    last = list(trainer.parameters.values())[-1]
    trainer.optimiser.state[last]["exp_avg_sq"].view(-1)[3] = torch.inf


def break_number(trainer) -> None:
    trainer.optimiser.param_groups[0]["d"] = float("nan")


@pytest.mark.parametrize("damage", [break_weight, break_average, break_memory, break_number])
def test_what_is_not_finite_is_never_saved_and_the_state_before_is_named(damage, tmp_path: Path):
    # Damage at the step before a save, which nothing but the save could notice in time.
    training = dataclasses.replace(toy.TRAINING, ema_decay=0.9)
    trainer = toy.trainer(tmp_path, training)
    trainer.update = unfailing(trainer, 5)
    with pytest.raises(Diverged, match=r"not finite.*good state is state-0000003\.safetensors"):
        break_after(trainer, 5, damage)
    assert [path.name for path in state.states(tmp_path / "run")] == ["state-0000003.safetensors"]
    again = toy.trainer(tmp_path, training)
    assert again.resume() == 3
    assert again.run()


def unfailing(trainer, step: int):
    """Let no update behind a step look at losses, which would notice as well."""
    update = trainer.update

    def skip() -> dict[str, float]:
        if trainer.step < step:
            return update()
        trainer.step += 1
        return {"loss": 1.0}

    return skip


def test_a_stop_saves_nothing_that_is_not_finite(tmp_path: Path):
    trainer = toy.trainer(tmp_path)
    trainer.run(should_stop=lambda: trainer.step == 4)
    break_weight_of = torch.no_grad()(break_weight)
    break_weight_of(trainer)
    with pytest.raises(Diverged, match=r"step 4: the weight student.* is not finite"):
        trainer.run(should_stop=lambda: True)
    assert toy.trainer(tmp_path).resume() == 4


def test_a_state_that_is_not_finite_is_not_gone_on_from(tmp_path: Path):
    toy.trainer(tmp_path).run()
    last = state.states(tmp_path / "run")[-1]
    found = state.load(last)
    name = next(iter(found.weights))
    found.weights[name].view(-1)[0] = torch.nan
    state.save(tmp_path / "run", found, 2)
    with pytest.raises(ValueError, match=r"0000012.*is not finite: delete it to go on from the on"):
        toy.trainer(tmp_path).resume()


def test_only_the_last_two_states_are_kept(tmp_path: Path):
    toy.trainer(tmp_path).run()
    assert [path.name for path in state.states(tmp_path / "run")] == [
        "state-0000009.safetensors",
        "state-0000012.safetensors",
    ]
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_damaged_state_says_what_to_do(tmp_path: Path):
    toy.trainer(tmp_path).run()
    last = state.states(tmp_path / "run")[-1]
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"state-0000012\.safetensors is damaged.*delete it"):
        toy.trainer(tmp_path).resume()
    last.unlink()
    assert toy.trainer(tmp_path).resume() == 9


CHANGES = {
    "radius": (dict(student=StudentConfig(radius=3)), "student.radius was 2 and is now 3"),
    "pooling": (dict(student=STUDENTS["pooled"]), "student.pool_factor was 0 and is now 2"),
    "radii": (dict(student=STUDENTS["radii"]), "student.radii was not recorded and is now 'single"),
    "rank": (dict(student=STUDENTS["low rank"]), "student.rank was 0 and is now 3"),
    "loss": (
        dict(loss=dataclasses.replace(toy.LOSS, prediction=0.25)),
        "loss.prediction was 0.5 and is now 0.25",
    ),
    "compared blocks": (
        dict(loss=dataclasses.replace(toy.LOSS, attention_blocks="single 0")),
        "loss.attention_blocks was 'double 0, single 0' and is now 'single 0'",
    ),
    "batch": (dict(batch=2), "training.batch was 4 and is now 2"),
    "seed": (dict(seed=5), "training.seed was 0 and is now 5"),
    "precision": (dict(precision="bf16"), "training.precision was 'float32' and is now 'bf16'"),
    "timesteps": (dict(timestep_mean=0.5), "training.timestep_mean was 0.0 and is now 0.5"),
    "guidance": (dict(guidance=2.0), "training.guidance was 3.5 and is now 2.0"),
    "own noise": (
        dict(own_noise=0.5),  # states of before there was such a share go on without
        "training.own_noise was not recorded and is now 0.5",
    ),
    "average": (dict(ema_decay=0.9), "training.ema_decay was 0.0 and is now 0.9"),
    "optimiser": (
        dict(optimiser=dataclasses.replace(toy.ADAMW, betas=(0.9, 0.95))),
        "optimiser.betas was [0.9, 0.999] and is now [0.9, 0.95]",
    ),
    "teacher": (dict(teacher=1), "teacher was '"),
    "steps of a decay": (dict(steps=13), "training.steps was 12 and is now 13"),
}


def changed(folder: Path, changes: dict[str, object]):
    """Make the trainer of a run in which some settings differ."""
    known = {entry.name for entry in dataclasses.fields(toy.TRAINING)}
    training = {name: value for name, value in changes.items() if name in known}
    rest = {name: value for name, value in changes.items() if name not in known}
    return toy.trainer(folder, dataclasses.replace(toy.TRAINING, **training), **rest)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    toy.trainer(folder).run()
    return folder


@pytest.mark.parametrize(("changes", "words"), CHANGES.values(), ids=CHANGES)
def test_a_state_of_another_run_is_refused_in_a_sentence(changes, words: str, finished: Path):
    trainer = changed(finished, changes)
    with pytest.raises(ValueError, match="state-0000012") as error:
        trainer.resume()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert trainer.step == 0


def test_one_radius_in_other_words_is_the_same_run(finished: Path):
    """A state from before there were radii has none; every block at the one radius is that too."""
    assert "radii" not in changed(finished, {}).made_with()["student"]
    trainer = changed(finished, dict(student=StudentConfig(radius=2, radii=" , ")))
    assert trainer.resume() == 12


def test_a_radius_of_a_block_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"student\.radii must be blocks .* got single 1"):
        toy.trainer(tmp_path, student=StudentConfig(radius=2, radii="single 1: 3"))
    with pytest.raises(ValueError, match=r"student\.radii must look like"):
        StudentConfig(radii="single 1")


def test_only_what_differs_is_named(finished: Path):
    trainer = changed(finished, dict(batch=2, student=StudentConfig(radius=3)))
    with pytest.raises(ValueError) as error:
        trainer.resume()
    assert str(error.value).count("is now") == 2


def test_every_setting_either_decides_the_result_or_is_listed_as_independent(finished: Path):
    """A new setting that nobody listed makes a state of another run."""
    decides = changed(finished, {}).made_with()
    assert "steps" in decides["training"]  # the step size decays towards the last one
    assert set(decides["training"]) | {*INDEPENDENT, *LATER} == {
        entry.name for entry in dataclasses.fields(toy.TRAINING)
    }
    for section, settings in (("optimiser", toy.ADAMW), ("loss", toy.LOSS)):
        assert set(decides[section]) == {entry.name for entry in dataclasses.fields(settings)}


@pytest.mark.parametrize(
    "changes",
    [
        dict(accumulate=2),
        dict(
            save_every=5,
            log_every=2,
            validate_every=3,
            validation_samples=1,
            patience=9,
            keep_states=5,
        ),
        dict(student=StudentConfig(radius=2, backend="reference")),
        dict(loss=dataclasses.replace(toy.LOSS, attention_blocks="single 0, double 0")),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_change_the_weights_may_differ(changes, finished: Path):
    assert changed(finished, changes).resume() == 12


def test_more_steps_are_welcome_and_fewer_are_not(tmp_path: Path):
    even = dataclasses.replace(toy.ADAMW, cosine_to=1.0)
    toy.trainer(tmp_path, optimiser=even).run()
    assert changed(tmp_path, dict(steps=13, optimiser=even)).resume() == 12
    with pytest.raises(ValueError, match=r"of step 12: training\.steps must be at least that"):
        changed(tmp_path, dict(steps=11, optimiser=even)).resume()


def test_more_data_is_welcome_and_other_data_is_not(tmp_path: Path):
    toy.trainer(tmp_path).run()
    shards = toy.data(tmp_path / "data")
    shards.add(toy.samples(8, seed=7))
    assert toy.trainer(tmp_path).resume() == 12
    path = tmp_path / "data" / "manifest.json"
    tree = json.loads(path.read_text())
    for changes, words in (
        ({"shards": tree["shards"][:1]}, r"data\.samples was 16 and is now 8; data\.seeds was '"),
        ({"made_with": {"toy": 9}}, r"data\.made_with\.toy was 16 and is now 9"),
    ):
        path.write_text(json.dumps({**tree, **changes}))
        trainer = changed(tmp_path, dict(data=ShardFolder(path.parent)))
        with pytest.raises(ValueError, match=words):
            trainer.resume()


def test_the_average_is_in_place_only_inside_its_with(tmp_path: Path):
    trainer = toy.trainer(tmp_path, dataclasses.replace(toy.TRAINING, ema_decay=0.99))
    trainer.run()
    weights = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    average = {name: p.clone() for name, p in trainer.average.items()}
    assert any(not torch.equal(weights[name], average[name]) for name in weights)
    with trainer.averaged():
        assert all(torch.equal(p, average[name]) for name, p in trainer.parameters.items())
    assert all(torch.equal(p, weights[name]) for name, p in trainer.parameters.items())
