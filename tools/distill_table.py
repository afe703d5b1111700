"""Write the table of docs/distillation.md: what the recipes for FLUX.1 [dev] take, calculated.

``python3 tools/distill_table.py`` replaces what stands between its two marks.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tools.environment import reexec_in_venv

    reexec_in_venv()

from clear_attention import TokenLayout, Window
from clear_attention.distill.ahead.duration import Duration, Pass, calculated, duration
from clear_attention.distill.ahead.memory import activations, estimate, trained_numbers
from clear_attention.distill.ahead.rehearsal import mean
from clear_attention.distill.config import RunConfig
from clear_attention.distill.config_file import read
from clear_attention.families.flux import NAMES
from clear_attention.families.names import ModelSize
from clear_attention.families.network import Job
from clear_attention.plan.cost import attention_flop, linear_flop
from tools.fit_table import FLUX_DEV, TEXT_TOKENS, TOKEN_PX, WEIGHTS
from tools.host import ROOT

DOCS = ROOT / "docs" / "distillation.md"
START, END = "<!-- runs: tools/distill_table.py -->", "<!-- end of runs -->"
COMPUTED = 2
"""Bytes of a number that a block computes with, where 8 bits are kept."""
SIZE = ModelSize(3072, {"double": 19, "single": 38}, 0)

LARGEST_BLOCK = 2 * (6 + 4 + 8) * 3072**2
"""Numbers of FLUX's largest block: for text and image, modulation, attention and MLP."""

BUS = 25e9
"""Bytes per second from main memory over PCIe 4.0 x16, of 31.5e9: a usual share, not measured."""

USED = 0.4
"""Share of a card's operations per second that is used: a usual one, not measured here."""


@dataclass(frozen=True)
class Card:
    """A kind of card.

    Attributes:
        name: For people.
        tera: Operations per second in bfloat16 by its maker, in 10**12, without sparsity.
        count: Cards that share a run.
    """

    name: str
    tera: float
    count: int = 1


RUNS = {
    "flux_dev_16gb": (Card("RTX 4080, 16 GB", 97.5), "fp8"),
    "flux_dev_24gb": (Card("RTX 4090, 24 GB", 165), "fp8"),
    "flux_dev_48gb": (Card("RTX 6000 Ada, 48 GB", 364), "bf16"),
    "flux_dev_local_16": (Card("H100, 80 GB", 989), "bf16"),
    "flux_dev_four_gpus": (Card("4 x RTX 6000 Ada", 364, 4), "bf16"),
}


def at_once(config: RunConfig, card: Card) -> int:
    """Return the pictures that a card computes at once."""
    return math.ceil(config.training.batch / (card.count * config.training.accumulate))


def one_pass(config: RunConfig, card: Card, weights: str) -> Pass:
    """Return the seconds of a picture's ways through FLUX.1 [dev], the mean over a run's sizes."""
    rate = USED * card.tera * 1e12
    fetched = WEIGHTS[weights] / BUS / at_once(config, card) if config.training.offload else 0.0
    trained = trained_numbers(NAMES, SIZE, config.student.rank)

    def of(job: Job) -> Pass:
        return calculated(
            tokens=linear_flop(FLUX_DEV, job) / rate,
            full=attention_flop(FLUX_DEV, job.full()) / rate,
            local=attention_flop(FLUX_DEV, job) / rate,
            trained=trained / FLUX_DEV.image_weights,
            recomputed=config.training.gradient_checkpointing,
            fetched=fetched,
        )

    window = Window(config.student.radius)
    passes = [of(Job(layout, window)) for layout in layouts(config)]
    return mean(passes, [1] * len(passes))


def layouts(config: RunConfig) -> list[TokenLayout]:
    """Return the tokens of a picture of each size of a run."""
    sizes = config.generation.sizes_px
    return [TokenLayout(TEXT_TOKENS, h // TOKEN_PX, w // TOKEN_PX) for h, w in sizes]


def duration_of(config: RunConfig, card: Card, weights: str) -> Duration:
    """Return what a recipe takes on a card, calculated."""
    generation = config.generation
    return duration(
        config,
        one_pass(config, card, weights),
        missing=generation.samples + generation.held_out_samples,
        held_out=generation.held_out_samples,
        shows=True,
        processes=card.count,
    )


def row(name: str, card: Card, weights: str) -> str:
    """Return the line of a recipe."""
    config = read(ROOT / "recipes" / f"{name}.toml")
    student, training = config.student, config.training
    found = duration_of(config, card, weights)
    held = estimate(
        NAMES,
        SIZE,
        teacher_bytes=COMPUTED * LARGEST_BLOCK if training.offload else WEIGHTS[weights],
        rank=student.rank,
        optimiser=config.optimiser.name,
        ema=training.ema_decay > 0,
    )
    computed = max(
        activations(
            FLUX_DEV,
            layout,
            pictures=at_once(config, card),
            trained=trained_numbers(NAMES, SIZE, student.rank),
            half=training.precision == "bf16",
            recomputed=training.gradient_checkpointing,
        )
        for layout in layouts(config)
    )
    shared = held.teacher + (held.total - held.teacher) / card.count + computed
    form = f"rank {student.rank}" if student.rank else "whole"
    cells = [
        f"`{name}`",
        card.name,
        f"{form}, {weights}",
        f"{training.steps} x {training.batch}",
        f"{shared / 1e9:.0f} GB",
        *(f"{seconds / 3600:.0f} h" for seconds in (found.painting, found.training)),
        f"{found.total / 3600:.0f} h",
    ]
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    """Return the table."""
    titles = "Recipe|Card|Student, teacher|Updates|Memory|Painting|Training|All"
    return "\n".join(
        [
            "| " + " | ".join(titles.split("|")) + " |",
            "|" + "---|" * (titles.count("|") + 1),
            *(row(name, *run) for name, run in RUNS.items()),
        ]
    )


def main() -> None:
    """Write the table into the documentation."""
    from demo.markdown import replace_between

    replace_between(DOCS, table(), START, END)


if __name__ == "__main__":
    main()
