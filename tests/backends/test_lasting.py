"""What stays after a call is made outside of a host's recording of allocations, and only that."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from interpreted import interpreted

from clear_attention import TokenLayout, Window, attention
from clear_attention.backends import lasting, tile_order
from clear_attention.backends.triton import lists, proof
from clear_attention.backends.triton.grid import whole_grid
from clear_attention.backends.triton.lists import Shape

CPU = torch.device("cpu")
LAYOUT = TokenLayout(3, 9, 11)


class Recording:
    """A host's recording: how often it was paused, and whether it is now."""

    def __init__(self) -> None:
        self.pauses, self.paused = 0, False

    @contextmanager
    def pause(self):
        self.pauses, self.paused = self.pauses + 1, True
        yield
        self.paused = False


@pytest.fixture
def recording(monkeypatch):
    found = Recording()
    monkeypatch.setitem(sys.modules, lasting.SHARED, SimpleNamespace(pause=found.pause))
    monkeypatch.setattr(lasting, "_used", set())
    lists.make_lists.cache_clear()
    tile_order.plan_blocks.cache_clear()
    return found


def watched(monkeypatch, module, name, recording):
    """Note in which state a function of a module is called."""
    states, original = [], getattr(module, name)

    def call(*args, **kwargs):
        states.append(recording.paused)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, call)
    return states


def test_the_kernels_lists_are_made_while_the_recording_is_paused(recording, monkeypatch):
    states = watched(monkeypatch, lists, "_others", recording)
    for _ in range(2):
        lists.make_lists(whole_grid(9, 11, Window(3)), Shape(4, 8, 16), torch.float32, CPU)
    assert states == [True] and recording.pauses == 1 and not recording.paused


def test_the_order_of_tiles_is_made_while_the_recording_is_paused(recording, monkeypatch):
    states = watched(monkeypatch, tile_order, "_positions", recording)
    q = torch.randn(1, 2, LAYOUT.tokens, 16)
    for _ in range(2):
        attention(q, q, q, LAYOUT, Window(3), backend="flex")
    assert states == [True] and recording.pauses == 1


def test_a_kernel_is_compiled_while_the_recording_is_paused_and_runs_while_it_goes_on(
    recording, monkeypatch
):
    q = torch.randn(1, 2, LAYOUT.tokens, 16)
    with interpreted():
        attention(q, q, q, LAYOUT, Window(3), backend="triton")
        assert recording.pauses >= 2  # a list, and a kernel with a window
        before = recording.pauses
        attention(q + 1, q, q, LAYOUT, Window(3), backend="triton")
    assert recording.pauses == before


def test_the_self_check_of_a_card_runs_while_the_recording_is_paused(recording, monkeypatch):
    monkeypatch.setattr(proof, "_error", lambda *_: 0.0 if recording.paused else float("nan"))
    proof.why_not.cache_clear()
    assert proof.why_not(CPU, torch.float32, 48) is None
    proof.why_not.cache_clear()


def test_what_failed_to_compile_counts_as_not_compiled(recording):
    for error in (True, False, False):
        with pytest.raises(RuntimeError) if error else lasting.first_use("kernel"):
            if error:
                with lasting.first_use("kernel"):
                    raise RuntimeError
    assert recording.pauses == 2
