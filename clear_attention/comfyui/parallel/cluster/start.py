"""Start a worker: ComfyUI's modules and nodes in this process, and the pack's copy among them."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import headless
from .door import BASE_VARIABLE, HOST_VARIABLE
from .prompt import CLUSTER_NODE


def worker(settings: Mapping[str, Any]) -> Any:
    """Return the worker of this process.

    Args:
        settings: ``comfyui`` and ``base_directory``, folders of a machine that has none of its
            own; ``cpu``; ``options``, see `host_options`.

    Raises:
        ValueError: There is no ComfyUI.
    """
    folder = os.environ.get(HOST_VARIABLE) or settings["comfyui"]
    base = os.environ.get(BASE_VARIABLE)
    if not os.environ.get(HOST_VARIABLE):
        base = settings["base_directory"]
    headless.put_host_first(Path(folder))
    headless.prepare(settings["cpu"], Path(base) if base else None)
    apply_options(settings["options"])
    headless.load_nodes()
    return _own_copy().Worker()


def _own_copy() -> Any:
    """Return the module of workers in the copy of the pack whose nodes the host has loaded.

    Objects of two copies of one module do not know each other.
    """
    nodes = importlib.import_module("nodes")
    if CLUSTER_NODE not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.load_custom_node(str(headless.PACK)))
    node = nodes.NODE_CLASS_MAPPINGS[CLUSTER_NODE]
    package = node.__module__.rpartition(".nodes.")[0]
    return importlib.import_module(f"{package}.clear_attention.comfyui.parallel.cluster.worker")


NUMERIC = (
    *("force_fp32", "force_fp16", "fp32_unet", "fp64_unet", "bf16_unet", "fp16_unet"),
    *("fp8_e4m3fn_unet", "fp8_e5m2_unet", "fp8_e8m0fnu_unet", "supports_fp8_compute"),
    *("force_upcast_attention", "dont_upcast_attention", "force_channels_last", "deterministic"),
    *("use_split_cross_attention", "use_quad_cross_attention", "use_pytorch_cross_attention"),
    *("use_sage_attention", "use_flash_attention", "disable_xformers"),
)
"""The host's options that change numbers: a worker takes them from the machine that samples."""


def host_options() -> dict[str, Any]:
    """Return the options of this host that its workers must have too; plain values."""
    args = _args()
    options = {name: getattr(args, name) for name in NUMERIC if hasattr(args, name)}
    return {**options, "fast": sorted(one.value for one in getattr(args, "fast", None) or ())}


def apply_options(options: Mapping[str, Any]) -> None:
    """Set options of this host, before its modules read them.

    Args:
        options: By `host_options`.
    """
    args: Any = _args()
    for name in NUMERIC:
        if name in options and hasattr(args, name):
            setattr(args, name, options[name])
    if options["fast"]:
        kind: Any = importlib.import_module("comfy.cli_args").PerformanceFeature
        args.fast = {kind(one) for one in options["fast"]}


def _args() -> Any:
    return importlib.import_module("comfy.cli_args").args


def folders() -> dict[str, Any]:
    """Return the folders of this host, which workers on this machine share."""
    paths: Any = importlib.import_module("folder_paths")
    base = getattr(_args(), "base_directory", None)
    return {
        "pack": str(headless.PACK),
        "comfyui": str(Path(paths.__file__).parent),
        "base_directory": base and str(base),
        "python": sys.executable,
    }
