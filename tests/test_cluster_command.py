"""``python -m clear_attention.cluster``: what it checks, and what it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from comfyui.hosts import HOST, ROOT

COMMAND = [sys.executable, "-m", "clear_attention.cluster", "--address", "10.0.0.1:6379"]


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def host():
    if not (HOST / "comfy").is_dir():
        pytest.skip(f"needs a ComfyUI: {HOST} has none, set COMFYUI_HOST to its folder")
    return HOST


def test_a_machine_is_described_before_it_joins(host):
    done = run("--comfyui", str(host), "--cpu", "--check")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith(": cpu")
    for name in ("ComfyUI", "CLEAR Attention", "Python", "torch", "Ray"):
        assert any(line.startswith(f"{name} ") for line in lines), name


def test_a_folder_without_comfyui_is_refused(tmp_path):
    done = run("--comfyui", str(tmp_path), "--check")
    assert done.returncode == 2
    assert f"{tmp_path} is no ComfyUI: name its folder with --comfyui." in done.stderr


def test_ray_starts_with_the_folders_that_workers_need(monkeypatch, tmp_path):
    from clear_attention.comfyui.parallel.cluster import join

    asked = {}

    def started(command, **settings):
        asked.update(command=command, **settings)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", started)
    assert join.start("10.0.0.1:6379", HOST, tmp_path, cpu=True) == 0
    assert asked["command"][:3] == [sys.executable, "-m", "ray.scripts.scripts"]
    assert {"--address=10.0.0.1:6379", "--num-gpus=0"} < set(asked["command"])
    assert asked["env"]["CLEAR_CLUSTER_COMFYUI"] == str(HOST)
    assert asked["env"]["CLEAR_CLUSTER_BASE_DIRECTORY"] == str(tmp_path)
    assert Path(asked["env"]["CLEAR_CLUSTER_PACK"]) == ROOT
    assert asked["cwd"] == HOST
