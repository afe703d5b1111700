"""Devices and shares, as users write them."""

from __future__ import annotations

import math

import comfy.model_management
import torch

ALL = "all"
AUTO = "auto"


def parse_devices(text: str) -> tuple[torch.device, ...]:
    """Return the devices that a text names; a device that stands there twice is two ranks.

    Args:
        text: "all" for every GPU that ComfyUI uses, or names: "cuda:0,cuda:1".

    Raises:
        ValueError: A name is unknown, or the device does not exist.
    """
    if text.strip().lower() == ALL:
        return all_devices()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError('devices must be "all" or names such as "cuda:0,cuda:1", got nothing.')
    return tuple(_device(name) for name in names)


def all_devices() -> tuple[torch.device, ...]:
    """Return every device of the kind that ComfyUI computes on, its own first."""
    main = comfy.model_management.get_torch_device()
    module = getattr(torch, main.type, None)
    count = module.device_count() if main.type != "cpu" and module is not None else 1
    if count < 2:
        return (main,)
    first = main.index or 0
    others = [index for index in range(count) if index != first]
    return tuple(torch.device(main.type, index) for index in (first, *others))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f'devices must be "all" or names such as "cuda:0,cuda:1", got {name!r}.'
        ) from error
    if device.type == "cpu":
        return torch.device("cpu")
    module = getattr(torch, device.type, None)
    count = module.device_count() if module is not None else 0
    index = device.index or 0
    if index >= count:
        raise ValueError(
            f"devices must exist, got {name!r}: torch sees {count} devices of the kind "
            f"{device.type}."
        )
    return torch.device(device.type, index)


def parse_shares(text: str, devices: tuple[torch.device, ...]) -> tuple[float, ...] | None:
    """Return the share of each device, or None where it is to be measured.

    Args:
        text: "auto", or numbers: "2:1".
        devices: That share the picture.

    Raises:
        ValueError: A number is missing or not positive.
    """
    if text.strip().lower() == AUTO:
        return None
    try:
        shares = tuple(float(one) for one in text.split(":"))
    except ValueError:
        shares = ()
    if len(shares) != len(devices) or not all(0 < share < math.inf for share in shares):
        raise ValueError(
            f'shares must be "auto" or {len(devices)} positive numbers such as '
            f'"{":".join("21"[: len(devices)] or "1")}", one for each device, got {text!r}.'
        )
    return shares


def name_of(device: torch.device) -> str:
    """Return what tells fast devices from slow ones: equal names are equally fast."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
