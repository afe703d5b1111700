"""The host without its server: for commands that use its models. Imports nothing of it at first."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from ..atomic_files import reason_of

PACK = Path(__file__).resolve().parents[2]
"""The folder of this pack."""

MORE_PATHS = "extra_model_paths.yaml"


def put_host_first(folder: Path) -> None:
    """Make ComfyUI's modules importable, and this pack's behind them.

    Args:
        folder: ComfyUI's.

    Raises:
        ValueError: There is no ComfyUI.
    """
    if not (folder / "comfy").is_dir():
        raise ValueError(f"{folder} is no ComfyUI: name its folder with --comfyui.")
    # The pack has a `nodes` of its own, which must not hide the host's.
    hidden = {PACK, Path.cwd()}
    rest = [entry for entry in sys.path if Path(entry).resolve() not in hidden]
    sys.path[:] = [str(folder), *rest, str(PACK)]


def prepare(cpu: bool, base_directory: Path | None = None) -> None:
    """Set the host's options; they count when its modules are first imported.

    Args:
        cpu: Run on the CPU.
        base_directory: Where its models and custom nodes are; None for its own folder.
    """
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    if base_directory is not None:
        args.base_directory = str(base_directory)
    if cpu:
        args.cpu = True
        args.use_pytorch_cross_attention = True  # several times faster than its default there
    # First, as the host does: its `nodes` puts a folder in front that has another `utils`.
    importlib.import_module("utils.extra_config")


def load_nodes() -> None:
    """Import all node packs, so that any loader can be named, and find what they load."""
    extra_config = importlib.import_module("utils.extra_config")
    nodes = _nodes()
    more_paths = Path(nodes.__file__).with_name(MORE_PATHS)
    if more_paths.is_file():
        extra_config.load_extra_path_config(str(more_paths))
    found = nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False)
    if inspect.isawaitable(found):
        asyncio.run(_wait(found))


async def _wait(found: Any) -> None:
    await found


def run_node(settings: Mapping[str, Any]) -> Any:
    """Run a node and return its first output.

    Args:
        settings: The node's id under ``node``, and its inputs.

    Raises:
        ValueError: There is no such node, or it refuses its inputs.
    """
    inputs = dict(settings)
    name = inputs.pop("node", None)
    known = _nodes().NODE_CLASS_MAPPINGS
    if name not in known:
        raise ValueError(f"A loader's node must be one that ComfyUI has, got {name!r}.")
    kind = known[name]
    function = kind.execute if hasattr(kind, "define_schema") else getattr(kind(), kind.FUNCTION)
    try:
        result = function(**inputs)
    except (TypeError, OSError) as error:
        raise ValueError(f"The loader {name} refuses {inputs}: {reason_of(error)}") from error
    return getattr(result, "args", result)[0]


class StopOnSignal:
    """Asks a run to stop when the process is told to.

    A second time kills it, unless it is one of several: the launcher passes on what a terminal has
    told each of them already, and kills those that take too long.
    """

    def __init__(self, one_of_several: bool = False) -> None:
        self.stop, self.one_of_several = False, one_of_several
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def asked(self) -> bool:
        """Say whether to stop."""
        return self.stop

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.stop = True
        if not self.one_of_several:
            signal.signal(number, signal.SIG_DFL)


def _nodes() -> Any:
    return importlib.import_module("nodes")  # the host's; type checkers would take the pack's
