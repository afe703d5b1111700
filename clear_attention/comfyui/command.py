"""The distiller on the command line: loads by the host's nodes, shows progress and pictures."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..distill.config import Config, ConfigError
from ..distill.toml_file import read_prompts
from .contact_sheet import contact_sheet, save_picture
from .distill import Watcher, distil
from .launch import load_nodes, run_node


def run(config: Config) -> int:
    """Distil, and return an exit code: 0 done, 1 stopped early."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    load_nodes()
    model = load(config, "model")
    prompts = read_prompts(config.generation.prompts) if config.generation.prompts else []
    clip = load(config, "clip") if prompts else None
    vae = load(config, "vae") if "vae" in config.loaders else None
    stop = StopOnSignal()
    screen = Screen(config.folder, vae)
    watcher = Watcher(
        progress=screen.progress,
        losses=screen.losses,
        pictures=screen.pictures if vae is not None else None,
        should_stop=stop.asked,
    )
    finished = distil(model, clip, config, prompts, watcher)
    screen.close()
    print(f"Written: {config.output}" if finished else "Stopped; the same command goes on.")
    return 0 if finished else 1


def load(config: Config, what: str) -> Any:
    """Load a model, clip or vae with the node that the settings name."""
    if what not in config.loaders:
        raise ConfigError(f"The settings need a table loaders.{what} with a node and its inputs.")
    with torch.inference_mode(False):
        return run_node(config.loaders[what])


class StopOnSignal:
    """Asks a run to stop when the process is told to; a second time kills it."""

    def __init__(self) -> None:
        self.stop = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def asked(self) -> bool:
        """Say whether to stop."""
        return self.stop

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.stop = True
        signal.signal(number, signal.SIG_DFL)


class Screen:
    """A progress bar with the losses, and pictures in the run's folder."""

    def __init__(self, folder: Path, vae: Any) -> None:
        self.folder, self.vae = folder, vae
        self.bar: tqdm[Any] | None = None

    def progress(self, what: str, done: int, of: int) -> None:
        """Move the bar."""
        if self.bar is None or self.bar.desc != what:
            self.close()
            self.bar = tqdm(total=of, initial=done, desc=what)
            self.bar.desc = what
        self.bar.update(done - self.bar.n)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Show the losses beside the bar."""
        if self.bar is not None:
            self.bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})

    def pictures(self, step: int, teacher: Tensor, student: Tensor) -> None:
        """Write teacher above student."""
        rows = [self.vae.decode(latent) for latent in (teacher, student)]
        path = self.folder / f"step-{step:07}.png"
        save_picture(contact_sheet(rows), path)

    def close(self) -> None:
        """Finish the bar."""
        if self.bar is not None:
            self.bar.close()
