"""Write the README's table "Will it fit my card?", as CLEAR Plan's library calculates it.

``python3 tools/fit_table.py`` replaces what stands between its two marks in ``README.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tools.environment import reexec_in_venv

    reexec_in_venv()

import torch

from clear_attention import TokenLayout, Window
from clear_attention.families.family import Family
from clear_attention.families.network import Job, flux
from clear_attention.plan.budget import Budget
from clear_attention.plan.memory import memory
from clear_attention.units import GIB, gib
from tools.host import ROOT

README = ROOT / "README.md"
START, END = "<!-- fit: tools/fit_table.py -->", "<!-- end of fit -->"

FLUX_DEV = flux(
    hidden=3072,
    heads=24,
    mlp=12288,
    double=19,
    single=38,
    latent_values=64,
    input_values=64,
    context=4096,
)
PARAMETERS = 11_901_408_320
"""Of FLUX.1 [dev]."""
WEIGHTS = {"bf16": 2 * PARAMETERS, "fp8": PARAMETERS}
CARDS_GIB = (8, 12, 16, 24)
TAKEN_GIB = 1
"""Of a card, by the desktop and by CUDA itself."""
EDGES_PX = (1024, 2048, 4096, 8192)
RADIUS, TEXT_TOKENS, TOKEN_PX, VAE_BYTES = 16, 256, 16, 2


def step_memory(edge_px: int, *, slices: bool) -> int:
    """Return the bytes beside the weights of a step with CLEAR, in bfloat16."""
    tokens = edge_px // TOKEN_PX
    # Tiled runs on every device, and takes no less than the others.
    job = Job(TokenLayout(TEXT_TOKENS, tokens, tokens), Window(RADIUS), backend="tiled")
    device = torch.device("cpu")
    return memory(FLUX_DEV, job, torch.bfloat16, device, slice_tokens=0 if slices else None)


def decoding(edge_px: int) -> int:
    """Return the bytes that ComfyUI expects a whole decode to take."""
    return Family.vae_values * edge_px**2 * VAE_BYTES


def budget(card_gib: int, weights: str, edge_px: int) -> Budget:
    """Return the memory of a card for a picture."""
    available = (card_gib - TAKEN_GIB) * GIB
    return Budget(available, WEIGHTS[weights], decoding(edge_px), reserved=0)


def cell(card_gib: int, weights: str, edge_px: int) -> str:
    """Say in a word whether a step fits, and whether all weights fit beside it."""
    room = budget(card_gib, weights, edge_px)
    whole, sliced = (step_memory(edge_px, slices=each) for each in (False, True))
    if sliced > room.room:
        return "no"
    for words, step in (("yes", whole), ("slices", sliced)):
        if step + room.weights <= room.available:
            return words
    return "streams" if whole <= room.room else "slices, streams"


def table() -> str:
    """Return the table and what its words mean."""
    cards = [f"{card} GB" for card in CARDS_GIB]
    lines = [
        "| Picture | A step: whole, in slices | Weights | " + " | ".join(cards) + " |",
        "|---|---|---|" + "---|" * len(cards),
    ]
    for edge in EDGES_PX:
        step = f"{gib(step_memory(edge, slices=False))}, {gib(step_memory(edge, slices=True))}"
        for weights in WEIGHTS:
            first = [f"{edge} x {edge}", step] if weights == next(iter(WEIGHTS)) else ["", ""]
            cells = [*first, weights, *(cell(card, weights, edge) for card in CARDS_GIB)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *legend()])


def legend() -> list[str]:
    """Say what the words of the table mean."""
    return [
        "**yes**: all of it on the card. **slices**: put *CLEAR Low Memory* behind the model. "
        "**streams**: the step",
        "fits, the weights do not fit beside it: ComfyUI fetches a part of them from main memory "
        "in every step.",
        f"Decode with *VAE Decode (Tiled)* from {tiles_from(CARDS_GIB[0])} pixels on with "
        f"{CARDS_GIB[0]} GB, from {tiles_from(CARDS_GIB[-1])} on with {CARDS_GIB[-1]} GB.",
    ]


def tiles_from(card_gib: int) -> int:
    """Return the smallest edge of a square that must be decoded in tiles, in steps of 256."""
    edge = 256
    while decoding(edge) <= budget(card_gib, "fp8", edge).room:
        edge += 256
    return edge


def main() -> None:
    """Write the table into the README."""
    from demo.markdown import replace_between

    replace_between(README, table(), START, END)


if __name__ == "__main__":
    main()
