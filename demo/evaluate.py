"""Measure what distilling repairs; ``python3 demo/evaluate.py`` writes it into demo/README.md.

For each window, the teacher behind it and the student distilled for it are compared with the
teacher's full attention, on prompts and seeds that training has not seen: at the size of the
training pictures, and without further training at two and four times that size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.enter import enter
from demo.markdown import README, replace_between
from demo.students import STUDENTS, TEACHING
from tools.environment import reexec_in_venv
from tools.host import ROOT

EDGE_PX = 384
SCALES = {1: 8, 2: 4, 4: 1}  # times the training size -> how many of the held-out prompts
NTK = {1: 1.0, 2: 4.0, 4: 10.0}  # CLEARHighRes' factor at each scale
STEPS = 16
SEED = 7_000
SHEET_PROMPTS = (1, 2, 6)  # rows of the contact sheet
HEADER_PX = 36
SHEET = ROOT / "web" / "docs" / "CLEARDistill" / "students.jpg"  # the help page shows it too
START, END = "<!-- results: written by demo/evaluate.py -->", "<!-- end of results -->"


@dataclass(frozen=True)
class Error:
    """How far a model is from the teacher's full attention.

    Attributes:
        velocity: Mean squared difference of the velocity, over the noise levels.
        picture: Mean squared difference of the finished pictures, of values from 0 to 1.
    """

    velocity: float
    picture: float

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio of the pictures in dB."""
        from clear_attention.compare.pictures import psnr

        return psnr(self.picture)


def main() -> None:
    """Measure everything, write the tables and the contact sheet."""
    host = reexec_in_venv()
    enter(host)
    bench = Bench()
    lines: list[str] = []
    for scale, count in SCALES.items():
        lines += [*table(bench, scale, count), ""]
        print("\n".join(lines[-6:]), flush=True)
    bench.write_sheet(SHEET)
    replace_between(README, "\n".join(lines), START, END)


def table(bench: Bench, scale: int, count: int) -> list[str]:
    """Compare all windows at one size, as lines of Markdown."""
    edge = EDGE_PX * scale
    size = f"{edge} x {edge} pixels, {edge // 16} x {edge // 16} tokens"
    title = "The training size" if scale == 1 else f"{scale} times the training size, zero-shot"
    rows = [
        f"**{title}**: {size}; {count} prompt{'s' * (count > 1)}",
        "",
        "| window | velocity error, teacher | student | recovered "
        "| picture, teacher | student | recovered |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (radius, factor) in STUDENTS.items():
        behind, student = bench.behind_window(radius, factor), bench.student(name)
        before, after = (bench.error(make, scale, count) for make in (behind, student))
        label = f"r = {radius}" + (f", pooled by {factor}" if factor else "")
        if scale == 1:
            bench.keep(f"{label}, not distilled", behind)
            bench.keep(f"{label}, distilled", student)
        rows.append(
            f"| {label} | {before.velocity:.4f} | {after.velocity:.4f} "
            f"| {recovered(before.velocity, after.velocity)} | {before.psnr:.1f} dB "
            f"| {after.psnr:.1f} dB | {recovered(before.picture, after.picture)} |"
        )
    return rows


def recovered(before: float, after: float) -> str:
    """Return the share of an error that is gone."""
    return f"{100 * (1 - after / before):.0f} %"


Make = Callable[[Any], Any]
"""Turns the teacher, a MODEL, into the model to compare with it."""


def encoded(lines: Sequence[str], guidance: float) -> list[Any]:
    """Encode prompts as CONDITIONING."""
    from demo.nodes.text import DemoCLIP

    clip, extra = DemoCLIP(), {"guidance": guidance}
    return [
        clip.encode_from_tokens_scheduled(clip.tokenize(line), add_dict=extra) for line in lines
    ]


def task_of(prompt: Any, scale: int) -> Any:
    """Return the task to paint a prompt at a size."""
    import torch

    from clear_attention.comfyui.compare.painting import Task

    edge = EDGE_PX * scale // 8
    return Task(prompt, prompt, torch.zeros(1, 16, edge, edge), STEPS, 1.0, "euler", "simple")


class Bench:
    """The teacher, its prompts, and what it paints."""

    def __init__(self) -> None:
        import comfy.sd

        from clear_attention.config.prompts import read_prompts
        from clear_attention.distill.config_file import read
        from demo.codec.vae_file import vae_weights
        from demo.nodes.network import load_model

        config = read(TEACHING / "student.toml")
        lines = read_prompts(TEACHING / "prompts.txt")[-config.generation.held_out :]
        self.prompts = encoded(lines, config.training.guidance)
        self.teacher = load_model()
        self.vae = comfy.sd.VAE(vae_weights())
        self.painted: dict[tuple[int, int], Any] = {}
        self.velocities: dict[tuple[int, int], Any] = {}
        self.columns: dict[str, list[Any]] = {}

    def behind_window(self, radius: int, factor: int = 0, **more: Any) -> Make:
        """Put the teacher behind a window, as CLEARAttention does."""
        from clear_attention.comfyui.core.patch import with_window
        from clear_attention.comfyui.core.settings import WindowSettings

        local = WindowSettings(radius, pool_factor=factor, **more)
        return lambda model: with_window(model, local)

    def student(self, name: str) -> Make:
        """Load a student, as CLEARLoader does."""
        from clear_attention.comfyui.weights.loader import load_onto

        self.make_known()
        return lambda model: load_onto(model, name)

    def keep(self, label: str, make: Make) -> None:
        """Paint some prompts for the contact sheet."""
        model = make(self.teacher)
        self.columns[label] = [self.decode(self.paint(model, index, 1)) for index in SHEET_PROMPTS]

    def write_sheet(self, path: Path) -> None:
        """Write the contact sheet: a column per model, under its name, and a row per prompt."""
        import torch
        from PIL import Image, ImageDraw

        from clear_attention.atomic_files import written_whole
        from clear_attention.comfyui.core.pictures import GAP, contact_sheet

        full = [self.painted[1, index][1] for index in SHEET_PROMPTS]
        columns = {"full attention": full, **self.columns}
        rows = [torch.stack(row) for row in zip(*columns.values(), strict=True)]
        pixels = (contact_sheet(rows).clamp(0, 1) * 255).byte().numpy()
        sheet = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + HEADER_PX), "white")
        sheet.paste(Image.fromarray(pixels), (0, HEADER_PX))
        for number, label in enumerate(columns):
            at = (number * (EDGE_PX + GAP) + 8, 6)
            ImageDraw.Draw(sheet).text(at, label, fill="black", font_size=HEADER_PX - 14)
        small = sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3))
        with written_whole(path) as part:
            small.save(part, "JPEG", quality=85)

    def make_known(self) -> None:
        """Let the host find the demo's files."""
        import folder_paths

        from demo.nodes.checkpoint import MODELS

        folder_paths.add_model_folder_path("clear", str(MODELS))

    def error(self, make: Make, scale: int, count: int) -> Error:
        """Compare a model with the teacher at one size."""
        from clear_attention.compare.velocity import squared_difference

        latents, pictures = self.teachers(scale, count)
        model = self.prepare(make(self.teacher), scale)
        velocity: list[float] = []
        picture: list[float] = []
        for index in range(count):
            true = self.teachers_velocities(scale, index)
            found = self.velocities_of(model, scale, index, latents[index])
            velocity += [float(squared_difference(*pair)) for pair in zip(true, found, strict=True)]
            painted = self.decode(self.paint(model, index, scale))
            picture.append(float(squared_difference(painted[None], pictures[index][None])))
        return Error(sum(velocity) / len(velocity), sum(picture) / len(picture))

    def teachers(self, scale: int, count: int) -> tuple[list[Any], list[Any]]:
        """Return the teacher's latents and pictures of the held-out prompts."""
        model = self.prepare(self.teacher, scale)
        for index in range(count):
            if (scale, index) not in self.painted:
                latent = self.paint(model, index, scale)
                self.painted[scale, index] = latent, self.decode(latent)
        chosen = [self.painted[scale, index] for index in range(count)]
        return [latent for latent, _ in chosen], [picture for _, picture in chosen]

    def teachers_velocities(self, scale: int, index: int) -> Any:
        """Return the teacher's velocities on one of its own pictures."""
        if (scale, index) not in self.velocities:
            model = self.prepare(self.teacher, scale)
            latent = self.painted[scale, index][0]
            self.velocities[scale, index] = self.velocities_of(model, scale, index, latent)
        return self.velocities[scale, index]

    def prepare(self, model: Any, scale: int) -> Any:
        """Prepare a model for a size, as CLEARHighRes does."""
        from clear_attention.comfyui.positions.high_resolution import for_high_resolution

        if scale == 1:
            return model
        return for_high_resolution(model, NTK[scale], proportional_attention=True)

    def paint(self, model: Any, index: int, scale: int) -> Any:
        """Paint a held-out prompt, as CLEARCompare does."""
        import torch

        from clear_attention.comfyui.compare.painting import paint

        with torch.inference_mode():
            return paint(model, self.task(index, scale), SEED + index, _ignore).latent

    def velocities_of(self, model: Any, scale: int, index: int, latent: Any) -> Any:
        """Predict the velocities on a picture, as CLEARCompare does."""
        import torch

        from clear_attention.comfyui.compare.predictions import velocities

        with torch.inference_mode():
            return velocities(model, self.task(index, scale), latent, SEED + index, _ignore)

    def task(self, index: int, scale: int) -> Any:
        """Return what is painted."""
        return task_of(self.prompts[index], scale)

    def decode(self, latent: Any) -> Any:
        """Decode one latent: ``[H, W, 3]``."""
        import torch

        with torch.inference_mode():
            return self.vae.decode(latent)[0]


def _ignore(_: Any) -> None:
    """Follow no steps."""


if __name__ == "__main__":
    main()
