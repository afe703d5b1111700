"""Fixtures: the module that puts checkpoints onto models, and the golden checkpoints."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from .golden import FOLDER

FILES = {"a-local": "clear_a_local", "a-pooled": "clear_a_down4", "b-pooled": "clear_b_down4"}


@pytest.fixture(scope="session")
def weights(host: Any) -> Any:
    """The functions under test; they can be imported only inside the host."""
    from clear_attention.comfyui.weights import folder, loaded, patches

    return SimpleNamespace(
        loaded=loaded,
        register_model_folder=folder.register_model_folder,
        load_clear=loaded.load_clear,
        ClearWeights=loaded.ClearWeights,
        Tensors=loaded.Tensors,
        apply_clear=patches.apply_clear,
    )


@pytest.fixture
def clear(host: Any) -> Any:
    """Load one of the golden checkpoints by its short name."""
    return golden_clear


def golden_clear(name: str) -> Any:
    """Load a golden checkpoint of whole weights for one of the FLUX models."""
    from clear_attention.comfyui.weights import loaded
    from clear_attention.weights import checkpoint

    found = checkpoint.read(FOLDER / f"{FILES[name]}.safetensors", radius=4)
    return loaded.ClearWeights(found, loaded.Tensors(checkpoint.load(found)))
