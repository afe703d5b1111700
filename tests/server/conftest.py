"""Commands that run in the host, as forks of a process that has it imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer

from tools.host import ROOT
from tools.server import Server


@pytest.fixture(scope="session")
def commands(server: Server) -> Iterator[ForkServer]:
    """Where commands start with the host imported."""
    places = {"COMFYUI_HOST": str(server.host), "COMFYUI_BASE": str(server.base)}
    here = Path(__file__).parent
    with ForkServer("commands", path=[here, ROOT], environment=places) as forks:
        yield forks
