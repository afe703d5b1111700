"""Measure what distilling repairs; ``python3 demo/evaluate.py`` writes it into demo/README.md.

For each window, the teacher behind it and the student distilled for it are compared with the
teacher's full attention, on prompts and seeds that training has not seen: at the size of the
training pictures, at two times that size, and at four times without training there. A row shows
what a window does at its best without distilling, and a column how far apart two seeds are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.bench import Bench, Error, Make
from demo.enter import enter
from demo.markdown import README, replace_between
from demo.students import STUDENTS, TRAINED_PX, window_name
from tools.environment import reexec_in_venv
from tools.host import ROOT

if TYPE_CHECKING:
    from torch import Tensor

SCALES = {1: 8, 2: 4, 4: 1}  # times the training size -> how many of the held-out prompts
TITLES = {
    1: "The training size",
    2: "2 times the training size, as a quarter of the training pictures have",
    4: "4 times the training size, zero-shot",
}
PROBES = {1: 4, 2: 4, 4: 1}  # prompts on which radii are chosen; at 1536 pixels one takes minutes
FREE_RADIUS = 8  # whose work windows without distilling may do
SHEET_PROMPTS = (1, 2, 6)  # rows of the contact sheet
HEADER_PX = 36
SHEET = ROOT / "web" / "docs" / "CLEARDistill" / "students.jpg"  # the help page shows it too
START, END = "<!-- results: written by demo/evaluate.py -->", "<!-- end of results -->"


def main() -> None:
    """Measure everything, write the tables and the contact sheet."""
    host = reexec_in_venv()
    enter(host)
    bench, sheet = Bench(), Sheet()
    lines: list[str] = []
    for scale, count in SCALES.items():
        rows = table(bench, sheet, scale, count)
        print("\n".join(rows), flush=True)
        lines += [*rows, ""]
    sheet.write(bench, SHEET)
    replace_between(README, "\n".join(lines), START, END)


def table(bench: Bench, sheet: Sheet, scale: int, count: int) -> list[str]:
    """Compare all windows at one size, as lines of Markdown."""
    edge = TRAINED_PX * scale
    size = f"{edge} x {edge} pixels, {edge // 16} x {edge // 16} tokens"
    another = f"{bench.another_seed(scale, count):.1f} dB"
    lines = [
        f"**{TITLES[scale]}**: {size}; {count} prompt{'s' * (count > 1)}",
        "",
        "| window | velocity error, teacher | student | recovered "
        "| picture, teacher | student | recovered | another seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain: dict[int, Error] = {}
    for name, (radius, factor) in STUDENTS.items():
        behind, student = bench.behind_window(radius, factor), bench.student(name)
        before, after = (bench.error(make, scale, count) for make in (behind, student))
        if not factor:
            plain[radius] = before
        window = window_name(radius, factor)
        if scale == 1:
            sheet.add(bench, f"{window}, not distilled", behind)
            sheet.add(bench, f"{window}, distilled", student)
        lines.append(row(window, before, after, another))
    best = training_free(bench, scale, count)
    return [
        *lines,
        row(f"work of r = {FREE_RADIUS}, not distilled", plain[FREE_RADIUS], best, another),
    ]


def row(window: str, before: Error, after: Error, another: str) -> str:
    """Return a line of the table."""
    cells = (
        *(window, f"{before.velocity:.4f}", f"{after.velocity:.4f}"),
        *(recovered(before.velocity, after.velocity), f"{before.psnr:.1f} dB"),
        *(f"{after.psnr:.1f} dB", recovered(before.picture, after.picture), another),
    )
    return "| " + " | ".join(cells) + " |"


def recovered(before: float, after: float) -> str:
    """Return the share of an error that is gone."""
    return f"{100 * (1 - after / before):.0f} %"


def training_free(bench: Bench, scale: int, count: int) -> Error:
    """Measure the best that windows do without distilling, for the work of one radius.

    CLEAR Locality Probe chooses a radius for each block, and the first steps have full attention.
    """
    from clear_attention.locality.choose import choose_radii
    from demo.radii import LATE, PROBED, measured, share_of_one

    costs = measured(bench, scale, PROBED[: PROBES[scale]])
    radii = choose_radii(costs, share_of_one(costs, FREE_RADIUS)).radii
    make = bench.behind_window(FREE_RADIUS, radii=radii, start_percent=LATE)
    return bench.error(make, scale, count)


class Sheet:
    """The contact sheet: a column per model, under its name, and a row per prompt."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Tensor]] = {}

    def add(self, bench: Bench, label: str, make: Make) -> None:
        """Let a model paint its column."""
        self.columns[label] = bench.paintings(make, SHEET_PROMPTS)

    def write(self, bench: Bench, path: Path) -> None:
        """Write the sheet, with full attention as the first column."""
        import torch
        from PIL import Image, ImageDraw

        from clear_attention.atomic_files import written_whole
        from clear_attention.comfyui.core.pictures import GAP, contact_sheet

        _, pictures = bench.teachers(1, max(SHEET_PROMPTS) + 1)
        columns = {"full attention": [pictures[index] for index in SHEET_PROMPTS]}
        columns |= self.columns
        rows = [torch.stack(row) for row in zip(*columns.values(), strict=True)]
        pixels = (contact_sheet(rows).clamp(0, 1) * 255).byte().numpy()
        sheet = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + HEADER_PX), "white")
        sheet.paste(Image.fromarray(pixels), (0, HEADER_PX))
        for number, label in enumerate(columns):
            at = (number * (TRAINED_PX + GAP) + 8, 6)
            ImageDraw.Draw(sheet).text(at, label, fill="black", font_size=HEADER_PX - 14)
        small = sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3))
        with written_whole(path) as part:
            small.save(part, "JPEG", quality=85)


if __name__ == "__main__":
    main()
