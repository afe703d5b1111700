"""How much memory a distillation needs: pure numbers, to choose between whole and low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...families.names import ModelSize, NameTable

MASTER = 4  # bytes per trained number: float32
# Numbers that an optimiser keeps per trained one: AdamW two averages; Prodigy besides those the
# starting point and the running sum behind its step size.
# 8-bit AdamW keeps both averages in a byte, and a float32 scale of 256 of them.
KEPT = {"adamw": 2, "adamw8bit": 2 * (1 + 4 / 256) / MASTER, "prodigy": 4}


@dataclass(frozen=True)
class Memory:
    """Bytes that a run holds for its whole length; activations come on top.

    Attributes:
        teacher: The frozen model, which the student shares.
        student: What is trained.
        gradients: Of what is trained.
        optimiser: What it remembers.
        main: Of the teacher in main memory, which is no part of the total.
    """

    teacher: int
    student: int
    gradients: int
    optimiser: int
    main: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.teacher + self.student + self.gradients + self.optimiser

    def __str__(self) -> str:
        return (
            f"{self.total / 1e9:.1f} GB (teacher {self.teacher / 1e9:.1f}, student "
            f"{self.student / 1e9:.1f}, gradients {self.gradients / 1e9:.1f}, optimiser "
            f"{self.optimiser / 1e9:.1f}), and activations"
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
    """
    bytes_each = trained_numbers(table, size, rank) * MASTER
    return Memory(
        teacher=teacher_bytes,
        student=bytes_each * (2 if ema else 1),
        gradients=bytes_each,
        optimiser=int(bytes_each * KEPT[optimiser]),
        main=main_bytes,
    )
