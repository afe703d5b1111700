"""What all tests share: the library, repeatable properties in CI, and a real ComfyUI server."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from tools.server import Server

ROOT = Path(__file__).parents[1]
TOGETHER = {"tests/browser/": "server", "tests/server/": "server", "tests/benchmarks/": "benchmark"}
"""Folders whose files share what a session starts but once, and with it a process."""

# Before Triton is first imported: without a GPU, its kernels are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Behind everything else: the host's folder, where there is one, has a `nodes` of its own.
sys.path += [str(ROOT), str(ROOT / "tests")]

settings.register_profile("local", deadline=None, max_examples=20)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what takes too long for each run."""
    parser.addoption(
        "--all-kernels",
        action="store_true",
        help="compile every row of every table of Triton kernels, not the first ones only",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say what is left out, in each of the processes that run tests."""
    from tools.reporting import Reporting

    config.pluginmanager.register(Reporting(strict=os.environ.get("CI") == "true"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest in one piece: one left for the end runs alone."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all tests of a real server to one process: each process would start its own.

    So with others that share what takes long to start.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneOfEach(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            found = (name for folder, name in TOGETHER.items() if file.startswith(folder))
            return next(found, file)

    return OneOfEach(config, log)


def pytest_collection_finish() -> None:
    """Take what is there for good, torch above all, out of what a garbage collection looks at.

    The host collects whenever it loads a model while an earlier one is gone.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running ComfyUI with this pack, the demo's nodes and files, and a VAE that is quick."""
    host = Path(os.environ.get("COMFYUI_HOST", ROOT / ".host" / "ComfyUI-0.3.75"))
    if not (host / "main.py").is_file():
        pytest.skip(f"needs a ComfyUI: {host} has none, set COMFYUI_HOST to its folder")
    from narrow_vae.places import FILE
    from narrow_vae.weights import narrow_weights
    from safetensors.torch import save_file

    from demo.install import write_models
    from tools.server import PACKS, Server

    base = tmp_path_factory.mktemp("comfyui")
    write_models(base)
    save_file(narrow_weights(), base / "models" / FILE)
    shrink_picture(base / "input" / "example.png")
    # The tensors are tiny: on a busy machine, threads wait for each other longer than they compute.
    # On a CPU the host would take another attention than on a GPU, several times slower.
    options = ["--use-pytorch-cross-attention"]
    packs = {**PACKS, "clear-attention-tests": ROOT / "tests" / "narrow_vae"}
    threads = {"OMP_NUM_THREADS": "1"}
    with Server(host, base, packs=packs, options=options, environment=threads) as server:
        yield server


def shrink_picture(path: Path) -> None:
    """Halve a picture's sides: the VAE's time grows with its pixels."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.reduce(2).save(path)
