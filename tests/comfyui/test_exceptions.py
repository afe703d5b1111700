"""What an exception shows besides its sentence: no folder of the user."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import pytest

KNOWN = {
    *("Aborted", "CheckpointError", "ConfigError", "Diverged", "FailedWorker", "LostWorker"),
    *("NotWritten", "PlanError"),
}


@pytest.fixture
def exceptions(pack):
    """Every exception class of the pack under test."""
    library = importlib.import_module(f"{pack.__name__}.clear_attention")
    modules = [
        name for _, name, _ in pkgutil.walk_packages(library.__path__, f"{library.__name__}.")
    ]
    for name in modules:
        if "triton" not in name and not name.endswith("__main__"):
            importlib.import_module(name)
    loaded = [module for name, module in sys.modules.items() if name.startswith(pack.__name__)]
    classes = (value for module in loaded for value in vars(module).values())
    return {one for one in classes if isinstance(one, type) and issubclass(one, Exception)}


def test_the_name_of_an_exception_holds_no_path(exceptions, pack):
    from execution import full_type_name  # what the host sends to the page and keeps in its history

    ours = {one for one in exceptions if one.__name__ in KNOWN}
    assert {one.__name__ for one in ours} == KNOWN
    for one in exceptions:
        assert "/" not in full_type_name(one) and "\\" not in full_type_name(one), one
    for one in ours:
        assert full_type_name(one) == f"clear_attention.{one.__name__}"
