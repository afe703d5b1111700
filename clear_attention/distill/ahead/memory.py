"""How much memory a distillation needs: pure numbers, to choose between whole and low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...families.names import ModelSize, NameTable
from ...families.network import Blocks, Network
from ...layout import TokenLayout

ATTENTION = 1 + 3 + 2 + 2  # hidden tensors that are kept of an attention: see `_kept`
PLAIN, GATED = 2, 3  # tensors as wide as an MLP at once, without a gate; those kept with one

MASTER = 4  # bytes per trained number: float32
# Numbers that an optimiser keeps per trained one: AdamW two averages; Prodigy besides those the
# starting point and the running sum behind its step size.
# 8-bit AdamW keeps both averages in a byte, and a float32 scale of 256 of them.
KEPT = {"adamw": 2, "adamw8bit": 2 * (1 + 4 / 256) / MASTER, "prodigy": 4}

# Numbers per trained one that a step takes for its length. On CUDA torch's AdamW steps over all
# tensors at once, with a result between as large as all of them ("foreach" in its documentation).
STEP_ON_CUDA = {"adamw": 1}


@dataclass(frozen=True)
class Memory:
    """Bytes that a run holds at its peak, an update.

    Attributes:
        teacher: The frozen model, which the student shares.
        student: What is trained.
        gradients: Of what is trained.
        optimiser: What it remembers.
        main: Of the teacher in main memory, which is no part of the total.
        activations: What an update computes with, 0 where they are not counted.
        step: What the optimiser's step computes with, when the activations are free again.
    """

    teacher: int
    student: int
    gradients: int
    optimiser: int
    main: int = 0
    activations: int = 0
    step: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        computed = max(self.activations, self.step)
        return self.teacher + self.student + self.gradients + self.optimiser + computed

    def __str__(self) -> str:
        steps = self.step > self.activations
        return (
            f"{self.total / 1e9:.1f} GB (teacher {self.teacher / 1e9:.1f}, student "
            f"{self.student / 1e9:.1f}, gradients {self.gradients / 1e9:.1f}, optimiser "
            f"{self.optimiser / 1e9:.1f}, activations {self.activations / 1e9:.1f}"
            f"{f', in whose place a step takes {self.step / 1e9:.1f}' if steps else ''})"
            f"{f'; main memory holds {self.main / 1e9:.1f} GB of the teacher' if self.main else ''}"
        )


def trained_numbers(table: NameTable, size: ModelSize, rank: int) -> int:
    """Count the numbers that a student of this rank trains, pooling weights apart; 0 is whole."""
    if rank:
        return sum(rank * (rows + columns) for rows, columns in table.shapes(size).values())
    biases = (rows.offset[2] for name, rows in table.slices(size).items() if name.endswith("bias"))
    return sum(math.prod(shape) for shape in table.shapes(size).values()) + sum(biases)


def estimate(
    table: NameTable,
    size: ModelSize,
    *,
    teacher_bytes: int,
    rank: int,
    optimiser: str,
    ema: bool,
    main_bytes: int = 0,
    activations: int = 0,
    on_cuda: bool = False,
) -> Memory:
    """Estimate a run.

    Args:
        table: Names of the trained projections.
        size: Width and blocks of the model.
        teacher_bytes: Size of the frozen model as it is loaded.
        rank: Of the student; 0 for whole matrices.
        optimiser: Its name.
        ema: Whether a running average is kept.
        main_bytes: What of the teacher is in main memory, beside `teacher_bytes` on the device.
        activations: Bytes that an update computes with.
        on_cuda: Whether what is trained is on a CUDA device, and not in shards.
    """
    bytes_each = trained_numbers(table, size, rank) * MASTER
    return Memory(
        teacher=teacher_bytes,
        student=bytes_each * (2 if ema else 1),
        gradients=bytes_each,
        optimiser=int(bytes_each * KEPT[optimiser]),
        main=main_bytes,
        activations=activations,
        step=bytes_each * STEP_ON_CUDA.get(optimiser, 0) if on_cuda else 0,
    )


def activations(
    network: Network,
    layout: TokenLayout,
    *,
    pictures: int,
    trained: int,
    half: bool,
    recomputed: bool,
) -> int:
    """Return the bytes that an update computes with: what blocks keep for the way back.

    On the way back, the gradients of a block's tensors come to what it kept, about as many again.
    Attention counts as fused: it keeps no scores.

    Args:
        network: The model's dimensions.
        layout: The tokens of one picture.
        pictures: That are computed at once.
        trained: Numbers that are trained, of which there is a copy in 16 bits.
        half: Whether it computes in 16 bits; norms do in 32.
        recomputed: Whether blocks keep their input only, and are computed again on the way back.
    """
    kept = [_kept(network, blocks, layout, half) for blocks in network.blocks]
    inputs = [_input(network, blocks, layout, half) for blocks in network.blocks]
    over_all = sum(
        blocks.count * each
        for blocks, each in zip(network.blocks, inputs if recomputed else kept, strict=True)
    )
    at_once = (2 if recomputed else 1) * max(kept)
    return pictures * (over_all + at_once) + (2 * trained if half else 0)


def _input(network: Network, blocks: Blocks, layout: TokenLayout, half: bool) -> int:
    hidden = blocks.hidden or network.hidden
    return blocks.layout(layout).tokens * hidden * (2 if half else 4)


def _kept(network: Network, blocks: Blocks, layout: TokenLayout, half: bool) -> int:
    """Return the bytes that a block keeps of a picture for the way back.

    Of each norm its input. Of each attention the input of its projections, q, k and v before and
    after norms and rotation, and its output in both orders of dimensions. Of an MLP the input of
    its activation, and where it is gated both factors besides.
    """
    hidden, mlp = blocks.hidden or network.hidden, blocks.mlp or network.mlp
    attentions = blocks.heads // 2  # each has queries and keys
    gated = max(moment.mlp for moment in blocks.moments) > PLAIN
    size = 2 if half else 4
    values = ATTENTION * attentions * hidden + (GATED if gated else 1) * mlp
    a_token = blocks.streams * hidden * 4 + values * size
    return blocks.layout(layout).tokens * a_token if blocks.count else 0
