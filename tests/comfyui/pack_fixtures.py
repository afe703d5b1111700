"""Fixtures: the pack as ComfyUI loads it, its nodes as functions, and model calls."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def pack(host: Path) -> ModuleType:
    """The pack under a path-like module name, as the host imports a custom node folder."""
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    gc.collect()
    gc.freeze()  # as `pytest_collection_finish` does: the host's modules have come with the pack
    return module


@pytest.fixture(autouse=True)
def models_of_other_tests() -> Iterator[None]:
    """Let the host forget models whose MODEL went with a test, while something holds their weights.

    It would take each for a leak, and collect all garbage before it loads any other model.
    """
    yield
    management = sys.modules.get("comfy.model_management")
    if management is not None:
        loaded = management.current_loaded_models
        loaded[:] = [model for model in loaded if not model.is_dead()]


@pytest.fixture(scope="session")
def product(pack: ModuleType) -> Callable[[str], ModuleType]:
    """Return a module of the pack under test by its dotted name in the library.

    ``product("comfyui.core.patch")`` is the module that the pack's own nodes use.
    """
    return lambda name: importlib.import_module(f"{pack.__name__}.clear_attention.{name}")


@pytest.fixture(scope="session")
def node_classes(pack: ModuleType) -> dict[str, Any]:
    """The pack's node classes by id."""

    async def node_list() -> list[Any]:
        return await (await pack.comfy_entrypoint()).get_node_list()

    # In a thread of its own: the browser tests leave an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        classes = thread.submit(lambda: asyncio.run(node_list())).result()
    return {node.define_schema().node_id: node for node in classes}


@pytest.fixture(scope="session")
def nodes(node_classes: dict[str, Any]) -> SimpleNamespace:
    """Each node as a function from a MODEL and its inputs to a MODEL, run as the host runs it."""

    def call(node: Any) -> Callable[..., Any]:
        def execute(*args: Any, **kwargs: Any) -> Any:
            with torch.inference_mode():
                return node.execute(*args, **kwargs).args[0]

        return execute

    return SimpleNamespace(**{name: call(node) for name, node in node_classes.items()})


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures stay white, where what they show is not what is tested: drawing them takes longest.

    Their curves are still made. `plan/`, `locality/` and `distill/` have tests of drawn ones.
    """
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: figure.patch.draw(renderer))


@pytest.fixture
def clear_folder(host: Path, pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models/clear folder that holds the golden CLEAR files."""
    import folder_paths

    golden = ROOT / "tests" / "golden"
    folders = dict(folder_paths.folder_names_and_paths)
    folders["clear"] = ([str(golden)], {".safetensors"})
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return golden


@pytest.fixture
def run(host: Path) -> Callable[..., Tensor]:
    """One velocity of a patched model, through `apply_model` and all its wrappers."""

    def velocity(model: Any, x: Tensor, timestep: Tensor, context: Tensor, **kwargs: Any) -> Tensor:
        model.patch_model()
        options = model.model_options.get("transformer_options", {})
        try:
            with torch.inference_mode():
                denoised = model.model.apply_model(
                    x, timestep, c_crossattn=context, transformer_options=options, **kwargs
                )
        finally:
            model.unpatch_model()
        sigma = timestep.view(-1, *[1] * (x.ndim - 1))
        return (x - denoised) / sigma

    return velocity
