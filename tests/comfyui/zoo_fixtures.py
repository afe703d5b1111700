"""A fixture: the small models of `families.zoo`, each built once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .families.zoo_models import build


@pytest.fixture(scope="session")
def zoo_model(host: Path) -> Iterator[Callable[[str], Any]]:
    """Return the MODEL of an entry, built once; a test clones it to change it."""
    models: dict[str, Any] = {}

    def model(name: str) -> Any:
        if name not in models:
            models[name] = build(name)
        return models[name].clone()

    yield model
    models.clear()  # while the host's modules are still there
