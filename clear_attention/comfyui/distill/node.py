"""A distillation started from the graph: its folder, its progress bar, its pictures, its file."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ...config.prompts import prompts_in
from ...distill import loss_figure
from ...distill.config import ConfigError, Pictures, RunConfig, StudentConfig
from ..core.pictures import contact_sheet, figure_or_message, save_picture
from ..core.report import tell
from ..weights.folder import FOLDER, SUFFIX, register_model_folder
from .data.pictures import files_in
from .data.sampling import request_to_stop_kept
from .run import distil
from .watcher import Watcher, log

RUNS = "clear_distill"
"""Folder of all runs in the host's output folder."""

PREVIEW_PX = 512


@dataclass(frozen=True, eq=False)
class Distilled:
    """What a run gives.

    Attributes:
        clear_name: The file in ``models/clear``.
        losses: Plot, ``[1, H, W, 3]``.
        pictures: Teacher above student, ``[1, H, W, 3]``; the plot where there is no VAE.
    """

    clear_name: str
    losses: Tensor
    pictures: Tensor


def distil_in_graph(
    model: ModelPatcher,
    clip: Any,
    vae: Any,
    name: str,
    prompts: str,
    settings: Mapping[str, Any],
    node_id: str | None = None,
    pictures_folder: str = "",
) -> Distilled:
    """Distil a model into ``models/clear``; data and states are kept in the output folder.

    Args:
        model: The teacher, a MODEL; it stays as it is.
        clip: Its text encoders.
        vae: To show pictures, or None.
        name: Of the run, and the beginning of the file's name.
        prompts: One per line; may be empty where there is a folder of pictures.
        settings: Sections of a `RunConfig` by name.
        node_id: The node that shows what the run will take.
        pictures_folder: Of pictures with captions to learn from, in the host's input folder or
            anywhere; empty for none.

    Raises:
        ValueError: A setting cannot be used; the message says why.
        InterruptProcessingException: The user stopped it. Queued again, it goes on.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"The name must be of letters, digits, _ and - only, got {name!r}.")
    sides_px = settings["generation"].sizes_px[0]
    pictures = pictures_of(pictures_folder.strip(), math.prod(sides_px))
    needed = pictures.folder is None or prompts.strip()
    lines = prompts_in(prompts, "The input prompts") if needed else []
    held_out = max(1, len(lines) // 10)
    folder = Path(folder_paths.get_output_directory()) / RUNS / name
    form = form_of(settings["student"])
    config = RunConfig(
        output=models_folder() / f"{name}_{form}{SUFFIX}",
        folder=folder / form,
        data=folder / "data",
        base=name,
        pictures=pictures,
        **{
            **settings,
            "generation": dataclasses.replace(settings["generation"], held_out=held_out),
        },
    )
    screen = NodeScreen(config.folder, vae)
    watcher = Watcher(
        progress=screen.progress,
        pictures=screen.pictures if vae is not None else None,
        message=partial(log_and_show, node_id),
    )
    if not distil(model, clip, config, lines, watcher, vae):
        comfy.model_management.throw_exception_if_processing_interrupted()
    losses = figure(config.folder)
    return Distilled(config.output.name, losses, losses if screen.sheet is None else screen.sheet)


def pictures_of(folder: str, area_px: int) -> Pictures:
    """Return the settings of a folder of pictures, a tenth of which is for validation.

    Args:
        folder: In the host's input folder, or a whole path; empty for none.
        area_px: Pixels of a picture.
    """
    if not folder:
        return Pictures()
    path = Path(folder_paths.get_input_directory()) / folder
    return Pictures(path, held_out=len(files_in(path)) // 10, area_px=area_px)


def log_and_show(node_id: str | None, text: str) -> None:
    """Write a line to the log, and onto a node if there is one."""
    log(text)
    if node_id is not None:
        tell(text, node_id)


def precision_of(model: ModelPatcher) -> str:
    """Return what to compute in: bfloat16, but float32 on a CPU, most of which are slow at less."""
    return "float32" if model.load_device.type == "cpu" else "bf16"


def form_of(student: StudentConfig) -> str:
    """Name what is distilled as the published files do, such as ``local_16_down_4``."""
    pooled = f"_down_{student.pool_factor}" if student.pool_factor else ""
    low_rank = f"_rank_{student.rank}" if student.rank else ""
    per_block = "_radii" if student.radii else ""
    return f"local_{student.radius}{pooled}{low_rank}{per_block}"


def models_folder() -> Path:
    """Return the folder that CLEARLoader lists first."""
    register_model_folder()
    return Path(folder_paths.get_folder_paths(FOLDER)[0])


def figure(folder: Path) -> Tensor:
    """Return the plot of the losses, or a picture of what to install for it: ``[1, H, W, 3]``."""
    return figure_or_message(lambda: loss_figure.draw(folder))[None]


@dataclass
class NodeScreen:
    """The node's progress bar, with previews.

    Attributes:
        folder: Where pictures are kept.
        vae: Decodes them, or None.
        sheet: The last pictures, ``[1, H, W, 3]``.
    """

    folder: Path
    vae: Any
    sheet: Tensor | None = None
    _bars: dict[str, Any] = field(default_factory=dict)

    def progress(self, what: str, done: int, of: int) -> None:
        """Move the node's bar, which starts again for each kind of work."""
        if what not in self._bars:
            self._bars = {what: comfy.utils.ProgressBar(of)}
        with request_to_stop_kept():
            self._bars[what].update_absolute(done, of)

    def pictures(self, step: int, teacher: Tensor, student: Tensor) -> None:
        """Keep teacher above student, and show it in the node."""
        with torch.inference_mode():
            # A VAE that knows frames gives one for each picture.
            decoded = [self.vae.decode(latent) for latent in (teacher, student)]
            sheet = contact_sheet([each.reshape(-1, *each.shape[-3:]) for each in decoded])
        self.sheet = sheet[None]
        save_picture(sheet, self.folder / f"step-{step:07}.png")
        shown = Image.fromarray((sheet * 255).round().byte().numpy())
        for bar in self._bars.values():
            bar.update_absolute(step, preview=("JPEG", shown, PREVIEW_PX))
