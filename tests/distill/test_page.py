"""The page about a run: what stands on it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clear_attention.distill import page
from clear_attention.distill.config import RunConfig, Training
from clear_attention.distill.log import Log
from clear_attention.distill.updates.best import Best


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "run").mkdir()
    return RunConfig(
        output=tmp_path / "mine.safetensors",
        folder=tmp_path / "run",
        base="A <b>bold</b> model",
        training=Training(steps=40),
    )


def written(config: RunConfig, step: int = 20, best: Best | None = None) -> str:
    page.write(config, step, best or Best("prediction"))
    text = (config.folder / "index.html").read_text(encoding="utf-8")
    HTMLParser().feed(text)
    return text


def test_a_run_without_a_validation_has_a_page(config: RunConfig):
    text = written(config)
    assert "Update 20 of 40. Nothing was validated yet." in text
    assert "A &lt;b&gt;bold&lt;/b&gt; model" in text and "<b>" not in text
    assert "<img" not in text
    assert "<td>training.steps</td><td>40</td>" in text


def test_the_best_validation_and_the_gain_since_the_first_one(config: RunConfig):
    log = Log(config.folder, 0)
    for step, error in ((10, 0.5), (20, 0.2)):
        log.add(step, {"prediction": error}, "held_out")
    text = written(config, best=Best("prediction", 0.2, 20))
    assert "was 0.2 at update 20, 2.50 times less than at the first validation." in text


def test_the_last_pictures_come_first_and_none_is_shown_from_memory(config: RunConfig):
    for step in range(20):
        (config.folder / f"step-{step:07}.png").write_bytes(b"")
    (config.folder / "losses.png").write_bytes(b"")
    sources = re.findall(r'src="([^"?]+)\?(\d+)"', written(config))
    names = [name for name, _ in sources]
    assert names == ["losses.png", *(f"step-{step:07}.png" for step in range(19, 7, -1))]
    assert all(int(time) > 0 for _, time in sources)
