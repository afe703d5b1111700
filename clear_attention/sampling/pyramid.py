"""A cascade that enlarges a picture: the sizes, steps, scales and guidance of its stages.

Each stage enlarges the picture, adds noise and takes it away again (SDEdit, arXiv 2108.01073). What
it takes from where:

- The steps that are run are diffusers' for a strength, as the CLEAR authors use it.
- Positions and softmax scale beyond the trained size are the CLEAR authors' (arXiv 2412.16112) and
  I-Max's (arXiv 2410.07536): rotary base times 10, scale `proportional_scale`.
- The guidance's decay is I-Max's "cosine_decay".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..families import DEFAULT
from ..scale import proportional_scale

MAX_FACTOR = 2
"""How many times larger than the one before a stage is at most, unless asked for."""

AUTHORS_NTK = 10.0
TRAINED_TOKENS = 4608  # 64 x 64 of the picture and 512 of text: where the scale of both is 1
TEXT_TOKENS = 512
TOKEN_PX = DEFAULT.token_px
ROTARY_DIM = 56  # of each axis of the picture in FLUX


class PlanError(ValueError):
    """A cascade that cannot be."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path


@dataclass(frozen=True)
class Stage:
    """One enlargement.

    Attributes:
        width: In pixels.
        height: In pixels.
        first_step: Of the schedule's steps, the first one that is run.
        steps: Of the whole schedule.
        ntk_factor: Factor on the base of the rotary positions.
        proportional: Whether the softmax scale grows with the number of tokens.
        token_px: Edge of a token in pixels.
    """

    width: int
    height: int
    first_step: int
    steps: int
    ntk_factor: float = 1.0
    proportional: bool = False
    token_px: int = TOKEN_PX

    @property
    def kept(self) -> int:
        """Steps that are run; with none, the picture is only enlarged."""
        return self.steps - self.first_step

    @property
    def longer(self) -> int:
        """The longer side in pixels."""
        return max(self.width, self.height)


@dataclass(frozen=True)
class CascadePlan:
    """A cascade.

    Attributes:
        stages: In their order.
        notes: Sentences about what is not as it was asked for.
    """

    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()


def plan(
    width: int,
    height: int,
    size: int,
    *,
    denoise: Sequence[float],
    steps: int,
    via: Sequence[int] = (),
    multiple: int = TOKEN_PX,
    trained: int = 1024,
    token_px: int = TOKEN_PX,
) -> CascadePlan:
    """Plan a cascade from a picture to a size.

    Args:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        size: Longer side of the result, in pixels.
        denoise: Strength of each stage, 0 to 1; the last one holds for all further ones.
        steps: Of the whole schedule.
        via: Longer sides of the stages on the way; none for stages of at most `MAX_FACTOR`.
        multiple: What sides must be multiples of.
        trained: Longer side of the pictures that the model was trained on, 0 to leave its
            positions and scale as they are.
        token_px: Edge of a token in pixels.

    Raises:
        PlanError: There is no such cascade; the message says why.
    """
    _check(width, height, size, denoise, multiple)
    source = max(width, height)
    target = max(round_to(size, multiple), ceil_to(source, multiple))
    inside = [round_to(side, multiple) for side in sorted(via)]
    inside = [side for side in inside if source < side < target]
    longer = [*inside, target] if inside else longer_sides(source, target, multiple)
    stages = tuple(
        _stage(*shape, strength, steps, trained, token_px)
        for shape, strength in zip(
            (_shape(width, height, side, multiple) for side in longer),
            _repeat_last(denoise, len(longer)),
            strict=True,
        )
    )
    notes = [*_notes(width, height, size, stages[-1], multiple)]
    notes += [
        f"a stage of {side} pixels is left out: it is not between the picture's {source} and {size}"
        for side in via
        if not source < round_to(side, multiple) < target
    ]
    for before, after in zip((source, *longer), longer, strict=False):
        if after > MAX_FACTOR * before:
            factor = after / before
            notes.append(f"{before} to {after} pixels is {factor:.1f} x; 2 x repeats itself less")
    if len(denoise) > len(stages):
        notes.append(f"the first {len(stages)} of {len(denoise)} values of denoise are used")
    return CascadePlan(stages, tuple(notes))


def longer_sides(source: int, target: int, multiple: int) -> list[int]:
    """Return the longer sides of the fewest stages of at most `MAX_FACTOR`, evenly spaced.

    Args:
        source: Longer side of the picture, at least one multiple.
        target: Longer side of the result, a multiple and not smaller than the picture.
        multiple: What the sides are multiples of.
    """
    count = max(1, math.ceil(math.log(target / source, MAX_FACTOR) - 1e-9))
    while True:
        sides = [target]
        for index in range(count - 1, 0, -1):
            even = round_to(source * (target / source) ** (index / count), multiple)
            side = max(
                even, ceil_to(sides[0] / MAX_FACTOR, multiple), ceil_to(source + 1, multiple)
            )
            if side < sides[0]:
                sides.insert(0, side)
        if sides[0] <= MAX_FACTOR * source:
            return sides
        count += 1  # rounding asked for more than MAX_FACTOR


def first_step(steps: int, denoise: float) -> int:
    """Return the first step that SDEdit runs: of 20 steps with strength 0.7, the last 14 are run.

    As diffusers counts them; KSampler's `denoise` makes a finer schedule instead.
    """
    # 100 * 0.29 is 28.999999999999996 in floating point, and 100 * 0.07 is 7.000000000000001.
    return steps - min(steps, math.ceil(steps * denoise - 1e-9))


def ntk_factor(longer: int, trained: int) -> float:
    """Return the factor on the rotary base for a longer side, both in pixels.

    10 beyond the trained size, as the CLEAR and I-Max authors have it for 2K and 4K. That covers
    "NTK-aware" scaling, s ** (d / (d - 2)) for s times the trained length, up to s = 9.2; beyond,
    the larger of both.
    """
    if longer <= trained:
        return 1.0
    return max(AUTHORS_NTK, (longer / trained) ** (ROTARY_DIM / (ROTARY_DIM - 2)))


def tokens(width: int, height: int, token_px: int = TOKEN_PX) -> int:
    """Return the length of the joint sequence of a picture and 512 tokens of text."""
    return TEXT_TOKENS + math.ceil(width / token_px) * math.ceil(height / token_px)


def attention_factor(stage: Stage) -> float:
    """Return what the softmax scale of a stage is multiplied by: sqrt(log_4608(tokens)) or 1."""
    if not stage.proportional:
        return 1.0
    length = tokens(stage.width, stage.height, stage.token_px)
    return proportional_scale(length, 1, TRAINED_TOKENS)


def progress_at(sigma: float, sigmas: Sequence[float]) -> float:
    """Return which share of the steps has passed at a noise level, between steps in proportion.

    Args:
        sigma: Noise level.
        sigmas: Noise levels of the steps, falling, one more than steps.
    """
    steps = len(sigmas) - 1
    for index in range(steps):
        above, below = sigmas[index], sigmas[index + 1]
        if sigma >= above:
            return index / steps
        if sigma > below:
            return (index + (above - sigma) / (above - below)) / steps
    return 1.0


def guidance_weight(progress: float, strength: float, decay: float) -> float:
    """Return how strongly the low frequencies are held to those of the smaller picture.

    ``strength * ((1 + cos(pi * progress)) / 2) ** decay``. With strength and decay 1 it is I-Max's
    "cosine_decay", with decay 0 its "constant".
    """
    return strength * ((1 + math.cos(math.pi * progress)) / 2) ** decay


def guidance_size(height: int, width: int, low_height: int, low_width: int) -> tuple[int, int]:
    """Return the size to which a latent is reduced to read its low frequencies.

    That of the smaller picture, whose details these are; at most half the larger one, so that
    something is left to paint. At 2 x, means of 2 x 2: I-Max's low band of a wavelet.

    Args:
        height: Of the latent.
        width: Of the latent.
        low_height: Of the smaller picture's latent.
        low_width: Of the smaller picture's latent.
    """
    return min(low_height, math.ceil(height / 2)), min(low_width, math.ceil(width / 2))


def round_to(length: float, multiple: int) -> int:
    """Return the nearest multiple, at least one."""
    return max(1, math.floor(length / multiple + 0.5)) * multiple


def ceil_to(length: float, multiple: int) -> int:
    """Return the next larger multiple, or the length if it is one."""
    return math.ceil(length / multiple) * multiple


def _stage(
    width: int, height: int, denoise: float, steps: int, trained: int, token_px: int
) -> Stage:
    longer = max(width, height)
    many = tokens(width, height, token_px) > TRAINED_TOKENS
    return Stage(
        width,
        height,
        first_step(steps, denoise),
        steps,
        ntk_factor(longer, trained) if trained else 1.0,
        bool(trained) and longer > trained and many,
        token_px,
    )


def _shape(width: int, height: int, longer: int, multiple: int) -> tuple[int, int]:
    """Return width and height with the picture's aspect ratio and a longer side."""
    shorter = round_to(longer * min(width, height) / max(width, height), multiple)
    return (longer, shorter) if width >= height else (shorter, longer)


def _repeat_last(values: Sequence[float], count: int) -> list[float]:
    return [values[min(index, len(values) - 1)] for index in range(count)]


def _check(width: int, height: int, size: int, denoise: Sequence[float], multiple: int) -> None:
    if min(width, height) < multiple:
        raise PlanError(
            f"The picture must have at least {multiple} pixels on each side, got {width} x "
            f"{height}. Enlarge it first."
        )
    if size < max(width, height):
        raise PlanError(
            f"size must be at least the picture's longer side, {max(width, height)}, got {size}. "
            "Set a larger size, or scale the picture down first."
        )
    if not denoise or not all(0 <= strength <= 1 for strength in denoise):
        raise PlanError(
            "denoise must be one number from 0 to 1 for all stages or one for each, such as "
            f'"0.7, 0.5", got "{", ".join(f"{strength:g}" for strength in denoise)}".'
        )


def _notes(width: int, height: int, size: int, last: Stage, multiple: int) -> Sequence[str]:
    exact = [side * size / max(width, height) for side in (width, height)]
    if (last.width, last.height) == tuple(exact):
        return []
    return [
        f"{exact[0]:g} x {exact[1]:g} is rounded to {last.width} x {last.height}: model and VAE "
        f"need multiples of {multiple} pixels"
    ]
