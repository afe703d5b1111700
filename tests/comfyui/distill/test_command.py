"""What the distiller refuses before it loads or paints anything, as a command and in processes."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from clear_attention.config import command as of_commands
from clear_attention.config.command import parser_of, run_command
from clear_attention.distill.config import Optimiser, RunConfig, StudentConfig, Training
from clear_attention.distill.workers.sharding import ASKED

from ..distil_fixtures import WordsCLIP, config

TWO = SimpleNamespace(num_processes=2)
RECOMPUTED = Training(batch=2, gradient_checkpointing=True)


@pytest.fixture
def command(pack, product):
    return product("comfyui.distill.command")


def settings(folder) -> RunConfig:
    return RunConfig(output=folder / "clear.safetensors", folder=folder / "run")


def test_a_run_without_a_loader_is_refused(command, tmp_path):
    with pytest.raises(ValueError, match=r"need a table loaders\.model: a node and its inputs"):
        command.run(settings(tmp_path))


def test_prompts_that_are_not_there_are_refused(command, tmp_path):
    given = config(tmp_path, "b")
    given = replace(given, generation=replace(given.generation, prompts=tmp_path / "nothing.txt"))
    with pytest.raises(ValueError, match=r"cannot be read, .*nothing\.txt \(No such"):
        command.run(given)


def test_a_loader_that_the_host_does_not_have_is_refused(pack, product):
    headless = product("comfyui.headless")
    with pytest.raises(ValueError, match="must be one that ComfyUI has, got 'Nothing'"):
        headless.run_node({"node": "Nothing"})


def test_a_loader_that_refuses_its_inputs_is_named(pack, product):
    headless = product("comfyui.headless")
    with pytest.raises(ValueError, match=r"^The loader VAELoader refuses \{'vae_name': 'no"):
        headless.run_node({"node": "VAELoader", "vae_name": "nothing"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(training=Training(batch=2)), r"set training\.gradient_checkpointing = true"),
        (
            dict(training=Training(batch=3, gradient_checkpointing=True)),
            "divide by the 2 processes, got 3 samples",
        ),
        (
            dict(
                training=RECOMPUTED,
                optimiser=Optimiser("prodigy"),
                student=StudentConfig(radius=2, rank=3),
            ),
            r"divide by the 2 processes, got 3 \(the model's width, student\.rank",
        ),
    ],
    ids=["no checkpointing", "uneven batch", "uneven shards"],
)
def test_what_several_processes_cannot_share_is_refused(
    changes, sentence, teacher, product, tmp_path, monkeypatch
):
    monkeypatch.setenv(ASKED, "true")
    checks = product("comfyui.distill.checks")
    with pytest.raises(ValueError, match=sentence):
        checks.require_shares(TWO, teacher("b"), config(tmp_path, "b", **changes))
    shared = config(tmp_path, "b", training=RECOMPUTED, optimiser=Optimiser("prodigy"))
    checks.require_shares(TWO, teacher("b"), shared)


def test_what_several_processes_cannot_share_is_refused_before_painting(
    teacher, product, tmp_path, monkeypatch
):
    run = product("comfyui.distill.run")
    monkeypatch.setenv(ASKED, "true")
    processes = SimpleNamespace(num_processes=2, is_main_process=True)
    monkeypatch.setattr(run, "make_accelerator", lambda cpu: processes)
    given = config(tmp_path, "b", training=Training(batch=2))
    watcher = product("comfyui.distill.watcher").Watcher()
    with pytest.raises(ValueError, match=r"set training\.gradient_checkpointing = true"):
        run.distil(teacher("b"), WordsCLIP(64), given, ["one", "two three"], watcher)
    assert not given.data_folder.exists()


@pytest.fixture
def start(command, product, tmp_path, monkeypatch):
    """Run the command, with `distil` in the place of the host's side, and return its exit code."""
    alone = SimpleNamespace(num_processes=1, is_main_process=True, device=torch.device("cpu"))
    monkeypatch.setattr(command, "load_nodes", lambda: None)
    monkeypatch.setattr(command, "run_node", lambda loader: None)
    monkeypatch.setattr(command, "StopOnSignal", lambda **_: SimpleNamespace(asked=lambda: False))
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def start(distil, **of_accelerator):
        accelerator = SimpleNamespace(**{**vars(alone), **of_accelerator})
        monkeypatch.setattr(command, "make_accelerator", lambda cpu: accelerator)
        monkeypatch.setattr(command, "distil", distil)
        given = replace(settings(tmp_path), loaders={"model": {}})
        act = lambda *_: command.run(given)  # noqa: E731 - as `_act` of the module is called
        monkeypatch.setattr(of_commands, "open_host", lambda *_: None)
        return run_command(parser_of("clear", ""), lambda _: given, "", ["x.toml"], act)

    return start


def test_an_error_stands_on_a_line_of_its_own(start, capfd, caplog, monkeypatch):
    def distil(model, clip, config, prompts, watcher, vae):
        watcher.progress("painting", 1, 3)
        watcher.message("a line of the log")
        watcher.progress("painting", 2, 3)
        raise ValueError("it went wrong")

    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    caplog.set_level(logging.INFO)
    assert start(distil) == 2
    lines = capfd.readouterr().err.replace("\r", "\n").split("\n")
    assert lines[-2:] == ["python -m clear: it went wrong", ""]
    assert "CLEAR: a line of the log" in [line.strip() for line in lines]


def test_what_the_system_says_becomes_a_sentence(start, capfd, tmp_path):
    def distil(*_):
        (tmp_path / "file").touch()
        (tmp_path / "file" / "folder").mkdir()

    assert start(distil) == 2
    said = capfd.readouterr().err
    assert (
        said
        == f"python -m clear: {tmp_path / 'file' / 'folder'} cannot be used (Not a directory).\n"
    )


def test_a_process_whose_companion_has_ended_says_so(start, capfd):
    lost = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection reset by peer"

    def end_with(text):
        raise RuntimeError(text)

    for text, count, expected in (
        (lost, 2, "process 2 of 2 cannot go on, for another one has ended: what that one said"),
        ("something else", 2, "something else"),
        (lost, 1, lost),
    ):
        distil = partial(lambda text, *_: end_with(text), text)
        assert start(distil, num_processes=count, process_index=1, is_main_process=False) == 2
        assert capfd.readouterr().err.startswith(f"python -m clear: {expected}")
