"""A comparison as a node gives it: a sheet and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...compare.summary import Comparison
from ...compare.table import table
from ..core import host
from ..core.patch import settings_of
from .checks import require_one_kind_of_latent, seeds_of, task_of
from .contestants import Contestant, connected, swept, teacher_of, without_collisions
from .looks import Eyes, kind_of
from .progress import CompareProgress
from .run import Match, Row, Run
from .sheet import edge_for, sheet_of, shrunk

NOT_DECODED = "No VAE is connected: pictures are compared as latents, whose range is the peak."
MEASURED = (
    "Velocity errors are mean squared differences of the models' outputs (flow matching; of other "
    "models, of the same quantity) on the finished picture of the first model, with the noise of "
    "its seed and without guidance. Seconds are of a picture, from the first call of the model on: "
    "loading is left out, and each model was called before."
)


def compare(
    model: ModelPatcher,
    clear_model: ModelPatcher,
    positive: Any,
    negative: Any,
    latent: Mapping[str, Any],
    *,
    seed: int = 0,
    pictures: int = 1,
    vae: Any = None,
    clip_vision: Any = None,
    sweep: str = "",
    **sampling: Any,
) -> tuple[Tensor, str]:
    """Paint the same pictures by both models, and measure how far they are apart.

    Args:
        model: A MODEL, left as it is: the teacher.
        clear_model: The same with CLEAR, left as it is.
        positive: CONDITIONING.
        negative: CONDITIONING.
        latent: LATENT, for the size and the batch.
        seed: Of the first picture.
        pictures: Number of seeds.
        vae: Decodes the pictures, or None to compare latents.
        clip_vision: CLIP_VISION for the distance of embeddings, or None.
        sweep: Further windows and files, see `contestants.swept`.
        **sampling: Further arguments of `task_of`.

    Returns:
        The sheet ``[1, H, W, 3]`` and the table.

    Raises:
        ValueError: Something cannot be compared; the message says what.
    """
    host.require_usable()
    require_one_kind_of_latent(model, clear_model)
    seeds, another = seeds_of(seed, pictures)
    teacher = teacher_of(model)
    others = without_collisions([connected(clear_model), *swept(model, sweep)])
    task = task_of(model, positive, negative, latent, **sampling)
    vision = {} if clip_vision is None or vae is None else {kind_of(clip_vision): clip_vision}
    eyes = Eyes(model, vae, vision)
    eyes.try_out()
    match = Match(teacher, others, task, seeds, another, eyes)
    run = Run(match, CompareProgress(model, match.work))
    rows = collected(run, (2 * len(others) + 2) * pictures * len(task.latent))
    names = [each.name for each in others]
    sheet = sheet_of(rows, teacher.name, names, another)[None]
    return sheet, text_of(match, rows, remarks(run, clip_vision))


def collected(run: Run, pictures: int) -> list[Row]:
    """Run a comparison and keep its rows, with pictures as small as a sheet shows them."""
    edge, rows = edge_for(pictures), list[Row]()
    for row in run.rows():
        small = {
            name: None if each is None else shrunk(each, edge)
            for name, each in row.pictures.items()
        }
        rows.append(Row(row.seed, row.place, small, row.measurements))
    return rows


def text_of(match: Match, rows: Sequence[Row], lines: Sequence[str]) -> str:
    """Return the table with what it is about."""
    measurements = tuple(one for row in rows for one in row.measurements.values())
    first = (
        f"{len(rows)} picture{'s' * (len(rows) != 1)} of {_size(match)}, seed {match.seeds[0]}"
        + (f" to {match.seeds[-1]}" if len(match.seeds) > 1 else "")
        + f", the other seed {match.another}; {match.task.steps} steps, {match.task.sampler}, "
        f"{match.task.scheduler}, cfg {match.task.cfg:g}"
    )
    text = table(Comparison(measurements, match.teacher.name))
    return "\n\n".join([first, text, *lines, MEASURED])


def remarks(run: Run, clip_vision: Any = None) -> list[str]:
    """Return what people must know to read a comparison aright."""
    match = run.match
    lines = [
        *_about_windows(match.teacher, match.others),
        *(f"{name}: {'; '.join(reasons)}." for name, reasons in run.remarks.items() if reasons),
    ]
    if match.eyes.vae is None:
        lines.append(NOT_DECODED)
        if clip_vision is not None:
            lines.append("clip_vision had no effect: it looks at pictures, which need a VAE.")
    return lines


def _about_windows(teacher: Contestant, others: Sequence[Contestant]) -> list[str]:
    lines: list[str] = []
    if teacher.is_local:
        lines.append(
            "The first model has a CLEAR window itself: what is measured is the distance to it, "
            "not to full attention."
        )
    for each in others:
        if not each.is_local:
            lines.append(f"{each.name}: this model has no CLEAR window.")
        elif teacher.is_local and _window(each) == _window(teacher):
            lines.append(f"{each.name}: both models have the same window.")
    return lines


def _window(contestant: Contestant) -> Any:
    settings = settings_of(contestant.model)
    local = settings.local and replace(settings.local, node_id=None, pool_weights={})
    learned = {} if settings.local is None else settings.local.pool_weights
    return local, {*map(id, learned.values())}, settings.wrap_height, settings.wrap_width


def _size(match: Match) -> str:
    latent = match.task.latent
    height, width = latent.shape[-2:]
    batch = f", batch {len(latent)}" if len(latent) > 1 else ""
    if match.eyes.vae is None:
        return f"{width} x {height} latent pixels{batch}"
    scale = match.eyes.vae.spacial_compression_decode()
    return f"{width * scale} x {height * scale} pixels{batch}"
