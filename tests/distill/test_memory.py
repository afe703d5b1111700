"""What a distillation of FLUX.1 [dev] needs, against the numbers that were counted by hand."""

from __future__ import annotations

import pytest

from clear_attention.distill.ahead.memory import estimate, trained_numbers
from clear_attention.distill.student import Student
from clear_attention.families.flux import NAMES as FLUX
from clear_attention.families.names import ModelSize

FLUX_DEV = ModelSize(3072, {"double": 19, "single": 38}, 0)
TEACHER = 23_800_000_000


def test_whole_projections_of_flux_are_as_many_numbers_as_the_published_files_hold():
    assert trained_numbers(FLUX, FLUX_DEV, 0) == 190 * (3072 * 3072 + 3072) == 1_793_648_640


def test_a_low_rank_is_two_thin_matrices_per_projection():
    assert trained_numbers(FLUX, FLUX_DEV, 64) == 190 * 2 * 64 * 3072


@pytest.mark.parametrize("rank", [0, 3])
def test_the_count_is_that_of_a_student(rank: int):
    size = ModelSize(32, {"double": 1, "single": 2}, 0)
    student = Student(FLUX, size, rank)
    assert trained_numbers(FLUX, size, rank) == sum(p.numel() for p in student.parameters())


@pytest.mark.parametrize(
    ("rank", "optimiser", "total"),
    [
        *((0, "adamw", 52.5), (0, "adamw8bit", 41.8), (0, "prodigy", 66.8)),
        *((64, "adamw", 25.0), (64, "adamw8bit", 24.5), (64, "prodigy", 25.6)),
    ],
)
def test_flux_needs_as_much_as_the_documentation_says(rank: int, optimiser: str, total: float):
    memory = estimate(
        FLUX, FLUX_DEV, teacher_bytes=TEACHER, rank=rank, optimiser=optimiser, ema=False
    )
    assert memory.total / 1e9 == pytest.approx(total, abs=0.05)
    assert str(memory).startswith(f"{total} GB (teacher 23.8")


@pytest.mark.parametrize(("activations", "total"), [(3, 52.5 + 7.2), (9, 52.5 + 9)])
def test_a_step_of_adamw_on_cuda_takes_a_copy_when_activations_are_free(activations, total):
    given = dict(teacher_bytes=TEACHER, rank=0, ema=False, activations=activations * 10**9)
    memory = estimate(FLUX, FLUX_DEV, optimiser="adamw", on_cuda=True, **given)
    assert memory.total / 1e9 == pytest.approx(total, abs=0.05)
    assert ("in whose place a step takes 7.2)" in str(memory)) == (activations < 7.2)
    others = [estimate(FLUX, FLUX_DEV, optimiser="adamw", **given)]
    others += [
        estimate(FLUX, FLUX_DEV, optimiser=name, on_cuda=True, **given)
        for name in ("adamw8bit", "prodigy")
    ]
    assert not any(each.step for each in others)
