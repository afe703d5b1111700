"""The command before there is a host: a mistake is one sentence and an exit code."""

from __future__ import annotations

import pytest

from clear_attention.distill.__main__ import main

LEAST = 'output = "a"\nfolder = "b"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LEAST + "[student]\nradios = 2", "Unknown setting student.radios; known are"),
        (LEAST, "is no ComfyUI: name its folder with --comfyui."),
    ],
    ids=["unknown setting", "no ComfyUI"],
)
def test_a_mistake_ends_the_command_with_one_sentence(text, sentence, tmp_path, capsys):
    run = tmp_path / "run.toml"
    run.write_text(text, encoding="utf-8")
    assert main([str(run), "--comfyui", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m clear_attention.distill: ")
    assert sentence in line
