"""Measure radii per block against one radius; ``python3 demo/radii.py`` writes the documentation.

CLEAR Locality Probe chooses the radii on pictures of prompts that are not among those that are
measured; errors are CLEAR Compare's, on held-out prompts and seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.bench import Bench, encoded, task_of
from demo.enter import enter
from demo.markdown import replace_between
from demo.students import GUIDANCE, STUDENTS, TRAINED_PX
from tools.environment import reexec_in_venv
from tools.host import ROOT

DOCS = ROOT / "docs" / "without_weights.md"
START, END = "<!-- radii: demo/radii.py -->", "<!-- end of radii -->"
SCALES = {1: 4, 2: 2}  # times the training size -> how many of the held-out prompts
BUDGETS = (0.25, 0.5)
PROBED = tuple(f"a photograph of {what}" for what in ("galaxies", "mountains", "a brook", "leaves"))
PROBED_SEED = 123  # of the first, and so on
LEVELS = 4
LATE = 0.25  # start_percent of the last row


def main() -> None:
    """Measure everything and write the tables."""
    host = reexec_in_venv()
    enter(host)
    bench = Bench()
    lines: list[str] = []
    for scale, count in SCALES.items():
        found = table(bench, scale, count)
        print("\n".join(found), flush=True)
        lines += [*found, ""]
    replace_between(DOCS, "\n".join(lines).rstrip("\n"), START, END)


def table(bench: Bench, scale: int, count: int) -> list[str]:
    """Compare the ways at one size, as lines of Markdown."""
    edge = TRAINED_PX * scale
    lines = [
        f"**{edge} x {edge} pixels**, {edge // 16} x {edge // 16} tokens; {count} prompts",
        "",
        "| work | windows | velocity error | of one radius | picture |",
        "|---|---|---|---|---|",
    ]
    costs = measured(bench, scale)
    for budget in BUDGETS:
        lines += rows(bench, scale, count, costs, budget)
    for name, (radius, factor) in STUDENTS.items():
        if radius == 8 and not factor:
            error = bench.error(bench.student(name), scale, count)
            work = f"{share_of_one(costs, radius):.0%}"
            cells = [work, "student, r = 8", f"{error.velocity:.4f}", "", f"{error.psnr:.1f} dB"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def rows(
    bench: Bench, scale: int, count: int, costs: dict[Any, Any], budget: float
) -> Iterator[str]:
    """Compare one radius with chosen ones at a budget."""
    from clear_attention.families.block_text import format_radii
    from clear_attention.locality.choose import choose_radii

    choice = choose_radii(costs, budget)
    ways = {
        f"r = {choice.one_radius}": bench.behind_window(choice.one_radius),
        format_radii(choice.radii): bench.behind_window(choice.one_radius, radii=choice.radii),
        f"the same from {LATE:.0%} of the steps on": bench.behind_window(
            choice.one_radius, radii=choice.radii, start_percent=LATE
        ),
    }
    errors = {label: bench.error(make, scale, count) for label, make in ways.items()}
    one = next(iter(errors.values())).velocity
    for label, error in errors.items():
        cells = [
            f"{choice.share:.0%}" if "same" not in label else "",
            label,
            f"{error.velocity:.4f}",
            f"{error.velocity / one:.2f}",
            f"{error.psnr:.1f} dB",
        ]
        yield "| " + " | ".join(cells) + " |"


def measured(bench: Bench, scale: int, probed: Sequence[str] = PROBED) -> dict[Any, Any]:
    """Probe the teacher on pictures that it paints of prompts, and return each block's costs."""
    import torch

    from clear_attention.comfyui.compare.painting import paint
    from clear_attention.comfyui.probe.locality import probe_windows
    from clear_attention.comfyui.probe.sample import Sample

    model = bench.prepare(bench.teacher, scale)
    samples: list[Sample] = []
    with torch.inference_mode():
        for seed, prompt in enumerate(encoded(probed, GUIDANCE), PROBED_SEED):
            latent = paint(model, task_of(prompt, scale), seed, lambda _: None).latent
            samples += Sample(prompt, {"samples": latent}, seed=seed).spread(LEVELS)
        found = probe_windows(model, samples, 512 * len(probed))
    return {block: each.cost for block, each in found.items()}


def share_of_one(costs: dict[Any, Any], radius: int) -> float:
    """Return the share of full attention's work that one radius needs."""
    return sum(each.work(radius) for each in costs.values()) / sum(
        each.full for each in costs.values()
    )


if __name__ == "__main__":
    main()
