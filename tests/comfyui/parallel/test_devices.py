"""Devices and shares as users write them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

CPU = torch.device("cpu")
TWO = (CPU, CPU)


@pytest.fixture
def devices(product):
    return product("comfyui.parallel.devices")


@pytest.fixture
def three_cards(devices, monkeypatch):
    """A machine with three cards, of which ComfyUI computes on the second."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    main = SimpleNamespace(get_torch_device=lambda: torch.device("cuda", 1))
    monkeypatch.setattr(devices.comfy, "model_management", main)


def test_names_are_devices_and_one_may_stand_there_twice(devices, three_cards):
    cards = tuple(torch.device("cuda", index) for index in (2, 0, 0))
    assert devices.parse_devices(" cuda:2, cuda,cuda:0,") == cards
    assert devices.parse_devices("cpu,cpu:0") == TWO


def test_all_are_those_of_comfyuis_kind_its_own_first(devices, three_cards):
    assert [one.index for one in devices.parse_devices("All ")] == [1, 0, 2]


def test_all_of_a_machine_without_cards_is_one(devices):
    assert devices.parse_devices("all") == (CPU,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r'devices must be "all" or names such as .*, got nothing\.'),
        (" , ", r'devices must be "all" or names such as .*, got nothing\.'),
        ("cpu,gpu1", r"devices must be .*, got 'gpu1'\."),
        ("cuda:3", r"devices must exist, got 'cuda:3': torch sees 3 devices of the kind cuda\."),
    ],
)
def test_what_is_no_device_is_refused(text, said, devices, three_cards):
    with pytest.raises(ValueError, match=said):
        devices.parse_devices(text)


def test_shares_are_numbers_or_measured(devices):
    assert devices.parse_shares("2:1.5", TWO) == (2.0, 1.5)
    assert devices.parse_shares(" Auto", TWO) is None


@pytest.mark.parametrize("text", ["", "2", "1:2:3", "1:0", "-1:2", "a:b", "1:nan", "inf:1"])
def test_shares_that_say_nothing_are_refused(text, devices):
    with pytest.raises(ValueError, match=r'shares must be "auto" or 2 positive .* "2:1", .* got'):
        devices.parse_shares(text, TWO)
