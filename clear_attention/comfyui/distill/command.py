"""The distiller on the command line: loads by the host's nodes, shows progress and pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from comfy.cli_args import args
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ...config import bounds
from ...config.prompts import read_prompts
from ...distill.config import RunConfig
from ...distill.workers.processes import leave, make_accelerator, others_alive
from ..core.pictures import contact_sheet, save_picture
from ..headless import StopOnSignal, load_nodes, run_node
from .run import distil
from .student_file import export
from .watcher import Watcher


def run(config: RunConfig) -> int:
    """Distil, and return an exit code: 0 done, 1 stopped early."""
    prompts = read_prompts(config.generation.prompts) if config.generation.prompts else []
    needed = ["model"]
    needed += ["clip"] if prompts or config.pictures.folder else []
    needed += ["vae"] if config.pictures.folder else []
    bounds.loaders(config.loaders, needed)
    # Before the host looks for its device, which each of several processes has its own of.
    accelerator = make_accelerator(cpu=args.cpu)
    stop = StopOnSignal(one_of_several=accelerator.num_processes > 1)
    level = logging.INFO if accelerator.is_main_process else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", force=True)
    load_nodes()
    model = run_node(config.loaders["model"])
    clip = run_node(config.loaders["clip"]) if "clip" in needed else None
    screen = Screen(config) if accelerator.is_main_process else None
    vae = screen.vae if screen else run_node(config.loaders["vae"]) if "vae" in needed else None
    # Lines of the log stand above the bar, and an error on a line of its own.
    with others_alive(accelerator):
        with logging_redirect_tqdm(), screen or nullcontext():
            finished = distil(model, clip, config, prompts, watcher_of(screen, stop), vae)
        if screen:
            print(f"Written: {config.output}" if finished else "Stopped; the same command goes on.")
        return leave(accelerator, 0 if finished else 1)


def export_state(config: RunConfig, state: Path) -> int:
    """Write the file of a state, and return an exit code."""
    bounds.loaders(config.loaders, ("model",))
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    load_nodes()
    print(f"Written: {export(run_node(config.loaders['model']), config, state)}")
    return 0


def watcher_of(screen: Screen | None, stop: StopOnSignal) -> Watcher:
    """Return what watches a run; of several processes only the first has a screen."""
    if screen is None:
        # Its log is quiet, so that hosts do not repeat what the first one logs.
        return Watcher(should_stop=stop.asked, message=lambda text: print(f"CLEAR: {text}"))
    return Watcher(
        progress=screen.progress,
        losses=screen.losses,
        pictures=screen.pictures if screen.vae is not None else None,
        should_stop=stop.asked,
    )


class Screen(AbstractContextManager["Screen"]):
    """A progress bar with the losses, which a ``with`` finishes, and pictures in the folder."""

    def __init__(self, config: RunConfig) -> None:
        self.folder = config.folder
        self.vae: Any = run_node(config.loaders["vae"]) if "vae" in config.loaders else None
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
        with torch.no_grad():
            rows = [self.vae.decode(latent) for latent in (teacher, student)]
        path = self.folder / f"step-{step:07}.png"
        save_picture(contact_sheet(rows), path)

    def __exit__(self, *_: object) -> None:
        """Finish the bar, however the run ended."""
        self.close()

    def close(self) -> None:
        """Finish the bar."""
        if self.bar is not None:
            self.bar.close()
