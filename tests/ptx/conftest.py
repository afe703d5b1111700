"""The interpreter, built once for all processes that run tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from ptx.library import Library, build
from ptx.programs import Bench


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Path of the built interpreter."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to build the interpreter of PTX")
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder, built = shared / "ptx", shared / "ptx" / "built"
    with FileLock(shared / "ptx.lock"):
        if not built.exists():
            folder.mkdir(exist_ok=True)
            built.write_text(str(build(folder)))
    return Path(built.read_text())


@pytest.fixture(scope="session")
def launch(interpreter: Path) -> Bench:
    """Run the bodies of small programs."""
    return Bench(Library(interpreter))
