"""Fixtures of the contract that every architecture of the zoo keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from .zoo_calls import Calls


@pytest.fixture(autouse=True)
def no_figure_is_drawn(undrawn: None) -> None:
    """A family has a part in the numbers of a figure, none in drawing it."""


@pytest.fixture
def reports(product: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The reports of the runs of a test, the last one at the end."""
    kept: list[Any] = []
    report = product("comfyui.core.report").RunReport
    publish = report.publish

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        kept.append(self)
        publish(self, *args, **kwargs)

    monkeypatch.setattr(report, "publish", keep)
    return kept


@pytest.fixture
def recorded(
    product: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Any]]:
    """Run something with a MODEL and return its attention calls: ``recorded(entry, model, run)``.

    The pack's own calls are seen where it calls the library; all others where the host lets another
    node see them, which is behind the pack.
    """
    module = product("comfyui.core.override")

    def record(entry: Any, model: Any, run: Callable[[Any], Any]) -> list[Any]:
        calls = Calls(entry, model)
        with monkeypatch.context() as patch:
            patch.setattr(module, "attention", calls.local(module.attention))
            with calls:
                run(calls.seen_by(model))
        return calls.seen

    return record


@pytest.fixture
def fused(
    host: Path, zoo_model: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """Models whose attention is PyTorch's, which is what the host takes on a GPU."""
    import comfy.ldm.modules.attention

    attend = comfy.ldm.modules.attention.attention_pytorch

    def model(name: str) -> Any:
        built = zoo_model(name)
        for module in [one for key, one in sys.modules.items() if key.startswith("comfy.ldm.")]:
            for function in ("optimized_attention", "optimized_attention_masked"):
                if hasattr(module, function):
                    monkeypatch.setattr(module, function, attend)
        return built

    return model


@pytest.fixture
def windowed(nodes: SimpleNamespace) -> Callable[..., Any]:
    """Return a MODEL with a window: ``windowed(model, radius)``."""
    return lambda model, radius: nodes.CLEARAttention(model, radius)
