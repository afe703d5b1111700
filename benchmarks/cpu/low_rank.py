"""How much of a distilled student survives as a LoRA: error and size by rank, on the demo's model.

    python3 benchmarks/cpu/low_rank.py

Each student's difference to its teacher is extracted at several ranks, as Extract CLEAR LoRA does,
written, loaded by CLEARLoader and compared with the whole student, on prompts and seeds that
training has not seen: the mean squared difference of the velocity at four noise levels. Rank 0 is
the teacher behind the student's window, without any distilled weights.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.students import STUDENTS, window_name
from tools.environment import reexec_in_venv
from tools.host import ROOT

RANKS = (4, 8, 16, 32, 64, 128, 256)
PROMPTS = 4
FIGURE = ROOT / "web" / "docs" / "CLEARExtractLoRA" / "error.jpg"  # the help page shows it
KB = 1000


@dataclass(frozen=True)
class Row:
    """One student at one rank.

    Attributes:
        student: Its window, for people.
        rank: Of the changes; 0 for none.
        weights: Relative error of the weights.
        velocity: Mean squared difference to the velocity of the whole student.
        recovered: Share of the velocity's error at rank 0 that is gone.
        teacher: Mean squared difference to the teacher's full attention.
        size: Of the file in bytes.
    """

    student: str
    rank: int
    weights: float
    velocity: float
    recovered: float
    teacher: float
    size: int

    def markdown(self) -> str:
        """Return the row of the table."""
        cells = (
            self.student,
            str(self.rank or "none"),
            f"{100 * self.weights:.1f} %",
            f"{self.velocity:.2g}",
            f"{100 * self.recovered:.1f} %",
            f"{self.teacher:.4f}",
            f"{self.size / KB:.0f} kB" if self.size else "-",
        )
        return "| " + " | ".join(cells) + " |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    arguments.add_argument("--prompts", type=int, default=PROMPTS)
    arguments.add_argument("--threads", type=int, help="fewer are steadier on a busy machine")
    options = arguments.parse_args()
    host = reexec_in_venv()
    from demo.enter import enter

    enter(host)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    from benchmarks.results_file import write

    rows = measure(options.ranks, options.prompts)
    write("low-rank", report(rows, options.prompts))
    draw(rows)


def measure(ranks: Sequence[int], prompts: int) -> list[Row]:
    """Extract and compare all students at all ranks."""
    import folder_paths

    from demo.bench import Bench

    bench = Bench()
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.add_model_folder_path("clear", folder)
        return [row for name in STUDENTS for row in of_student(bench, name, ranks, prompts, folder)]


def of_student(bench: Any, name: str, ranks: Sequence[int], prompts: int, folder: str) -> list[Row]:
    """Extract and compare one student."""
    radius, factor = STUDENTS[name]
    label = window_name(radius, factor)
    full = velocities(bench, lambda model: model, prompts)
    whole = velocities(bench, bench.student(name), prompts)
    without = velocities(bench, bench.behind_window(radius, factor), prompts)
    least = apart(without, whole)
    rows = [Row(label, 0, 1.0, least, 0.0, apart(without, full), 0)]
    for rank in ranks:
        path, error = extract_file(name, rank, Path(folder))
        found = velocities(bench, bench.student(path.name), prompts)
        velocity = apart(found, whole)
        recovered = 1 - velocity / least
        size = path.stat().st_size
        rows.append(Row(label, rank, error, velocity, recovered, apart(found, full), size))
        print(rows[-1].markdown(), flush=True)
    return rows


def velocities(bench: Any, make: Any, prompts: int) -> list[Any]:
    """Predict the velocities of a model made from the bench's teacher."""
    latents, _ = bench.teachers(1, prompts)
    model = make(bench.teacher)
    return [
        velocity
        for index in range(prompts)
        for velocity in bench.velocities_of(model, 1, index, latents[index])
    ]


def apart(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Return the mean squared difference."""
    squares = [float((a - b).square().mean()) for a, b in zip(ours, theirs, strict=True)]
    return sum(squares) / len(squares)


def extract_file(name: str, rank: int, folder: Path) -> tuple[Path, float]:
    """Write a student's LoRA of a rank; return the file and the relative error of its weights."""
    import torch

    from clear_attention.weights import load, low_rank, read
    from clear_attention.weights.extract import extract
    from demo.nodes.checkpoint import MODELS, base_weights

    found = read(MODELS / name)
    extracted = extract(
        found.table, found.rows, base_weights(), load(found), rank=rank, dtype=torch.bfloat16
    )
    path = folder / f"{Path(name).stem}_rank_{rank}.safetensors"
    low_rank.save(path, extracted.tensors, radius=found.radius, base=found.base)
    return path, extracted.error


def report(rows: Sequence[Row], prompts: int) -> str:
    """Return the tables as Markdown."""
    from demo.nodes.checkpoint import MODELS

    sizes = {(MODELS / name).stat().st_size for name in STUDENTS}
    lines = [
        "The demo's FLUX (1 double and 4 single blocks, width 256) and its students; LoRAs in "
        f"bfloat16, biases and pooling weights whole; {prompts} held-out prompts at 384 x 384 "
        "pixels, noise levels 0.9, 0.7, 0.5 and 0.3. *Recovered* is the share of the velocity's "
        "squared difference to the whole student that the LoRA removes.",
        "",
        f"A student's whole file: {max(sizes) / KB:.0f} kB.",
    ]
    for student, group in itertools.groupby(rows, key=lambda row: row.student):
        lines += [
            "",
            f"| {student} | rank | error of weights | velocity, to the whole student | recovered "
            "| velocity, to full attention | file |",
            "|---|---|---|---|---|---|---|",
            *(row.markdown().replace(f"| {student} ", "| ", 1) for row in group),
        ]
    return "\n".join(lines)


def draw(rows: Sequence[Row]) -> None:
    """Plot what is lost over the rank."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from clear_attention.atomic_files import written_whole

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=100)
    for number, (student, group) in enumerate(
        itertools.groupby((row for row in rows if row.rank), key=lambda row: row.student)
    ):
        points = list(group)
        ranks = [row.rank for row in points]
        colour = f"C{number}"
        axes.plot(ranks, [100 * row.weights for row in points], f"{colour}--", marker=".")
        lost = [100 * (1 - row.recovered) for row in points]
        axes.plot(ranks, lost, f"{colour}-", marker="o", label=student)
    axes.plot([], [], "k-", label="velocity (squared)")
    axes.plot([], [], "k--", label="weights")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({row.rank for row in rows if row.rank}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("rank")
    axes.set_ylabel("lost of what distilling changed, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    with written_whole(FIGURE) as part:
        figure.savefig(part, format="jpeg", pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
