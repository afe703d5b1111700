"""An update on pictures like those of a run, rehearsed in the host before the first is painted."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher

from ...distill.ahead.duration import Pass
from ...distill.ahead.rehearsal import between, mean, rehearse
from ...distill.config import RunConfig, Training
from ...distill.data.batches import PATCH_AREA, Batch
from ...distill.data.shards import Samples, ShardFolder
from ...distill.tasks import Distillation
from ...layout import TokenLayout
from ..families import require_family
from ..plan.model import token_px
from .data.generation import chunks
from .data.pictures import size_near
from .data.sampling import Prompt
from .denoiser import HostDenoiser

SIGMA = 0.5
STANDING_IN = 64
"""Rank of the student that is rehearsed where several processes share a whole one: it would not fit
into the memory of one of them."""


@dataclass(frozen=True, eq=False)
class Alike:
    """Pictures of a run that are of one size.

    Attributes:
        sample: One of them, or noise of its shape.
        count: How many there are.
    """

    sample: Samples
    count: int

    def of_update(self, training: Training) -> int:
        """Return how many of them an update takes."""
        if not training.batch_tokens:
            return training.batch
        height, width = self.sample.latent.shape[-2:]
        return max(1, training.batch_tokens // (height * width // PATCH_AREA))

    def at_once(self, training: Training, processes: int) -> int:
        """Return how many of them are computed at once."""
        return math.ceil(self.of_update(training) / (processes * training.accumulate))

    def layout(self, model: ModelPatcher) -> TokenLayout:
        """Return the tokens of one of them."""
        latent_px = require_family(model).data.latent_px
        edges = (edge * latent_px / token_px(model) for edge in self.sample.latent.shape[-2:])
        return TokenLayout(self.sample.context.shape[1], *map(math.ceil, edges))


def painted(model: ModelPatcher, config: RunConfig, text: Prompt) -> list[Alike]:
    """Return the pictures that the teacher is to paint, by their sizes.

    Args:
        model: The teacher.
        config: The run.
        text: One of the prompts.
    """
    generation = config.generation
    sizes = generation.sizes_px
    found: Counter[tuple[int, int]] = Counter()
    for number, chunk in enumerate(chunks(range(generation.samples), generation.shard)):
        found[sizes[number % len(sizes)]] += len(chunk)
    return [Alike(_noise(model, size_px, text), count) for size_px, count in found.items()]


def captioned(model: ModelPatcher, config: RunConfig, text: Prompt, count: int) -> list[Alike]:
    """Return pictures of a folder that is still to be encoded: all as if they were square.

    Args:
        model: The teacher.
        config: The run.
        text: Any prompt.
        count: How many there are.
    """
    size_px = size_near(1, 1, config.pictures.area_px)
    return [Alike(_noise(model, size_px, text), max(1, count))]


def there(data: ShardFolder) -> list[Alike]:
    """Return the pictures of a folder, by their sizes."""
    return [Alike(bucket.load([0]), len(bucket)) for bucket in data.buckets()]


def mean_batch(pictures: Sequence[Alike], training: Training) -> float:
    """Return how many pictures an update takes, the mean over the updates of a run."""
    updates = sum(each.count / each.of_update(training) for each in pictures)
    return sum(each.count for each in pictures) / updates


def chosen(pictures: Sequence[Alike], model: ModelPatcher) -> dict[int, Alike]:
    """Return the largest, a middle and the smallest pictures by their tokens.

    Captions and aspect ratios make hundreds of sizes; the time of those between follows.

    Args:
        pictures: Of a run.
        model: The teacher.
    """
    by_tokens = {each.layout(model).tokens: each for each in pictures}
    most, least = max(by_tokens), min(by_tokens)
    middle = min(by_tokens, key=lambda tokens: abs(2 * tokens - most - least))
    return {tokens: by_tokens[tokens] for tokens in (most, middle, least)}


def rehearsed(
    model: ModelPatcher,
    config: RunConfig,
    pictures: Sequence[Alike],
    should_stop: Callable[[], bool] = lambda: False,
    *,
    processes: int,
    shards: bool,
    left: Callable[[Pass], float] = lambda one: math.inf,
) -> Pass | None:
    """Rehearse an update on pictures of up to three sizes, and return the mean over the run's.

    Args:
        model: The teacher.
        config: The run.
        pictures: Of the run.
        should_stop: Asked between the passes.
        processes: That share an update.
        shards: Whether they share one student, too.
        left: Returns the seconds that the run takes, by those of a picture.

    Returns:
        The mean, or a bound on it where little is left to do; None if it was stopped.
    """
    measured = _measured(
        model, config, chosen(pictures, model), should_stop, processes, shards, left
    )
    comfy.model_management.soft_empty_cache()
    if not measured:
        return None
    passes = [between(measured, each.layout(model).tokens) for each in pictures]
    return mean(passes, [each.count for each in pictures])


def _measured(
    model: ModelPatcher,
    config: RunConfig,
    sizes: Mapping[int, Alike],
    should_stop: Callable[[], bool],
    processes: int,
    shards: bool,
    left: Callable[[Pass], float],
) -> dict[int, Pass]:
    """Return the seconds of each size by its tokens; none if it was stopped."""
    training, student = config.training, config.student
    if shards:
        student = dataclasses.replace(student, rank=student.rank or STANDING_IN)
    found: dict[int, Pass] = {}
    with torch.inference_mode(False), torch.enable_grad():
        denoiser = HostDenoiser(model, in_main_memory=training.offload)
        task = Distillation(denoiser, training, student, config.loss)
        task.to(model.load_device)
        for tokens, each in sizes.items():
            at_once = each.at_once(training, processes)
            one = rehearse(
                task,
                _batch(each.sample, at_once),
                None if shards else config.optimiser,
                should_stop,
                # Offloaded, a way costs much the same for one picture and for all.
                painted=at_once if training.offload else config.generation.batch,
                left=lambda one: math.inf if found else left(one) / len(sizes),
            )
            if one is None:
                return {}
            if one.at_most:  # of the largest, so of all
                return dict.fromkeys(sizes, one)
            found[tokens] = one
    return found


def _batch(sample: Samples, count: int) -> Batch:
    """Return a picture several times, with noise."""
    repeated = {name: value[:1].clone() for name, value in vars(sample).items()}
    samples = Samples(**{name: torch.cat([one] * count) for name, one in repeated.items()})
    noise = torch.randn(samples.latent.shape, generator=torch.Generator().manual_seed(0))
    return Batch(samples, noise, torch.full((count,), SIGMA))


def _noise(model: ModelPatcher, size_px: tuple[int, int], text: Prompt) -> Samples:
    channels = model.get_model_object("latent_format").latent_channels
    latent_px = require_family(model).data.latent_px
    latent = torch.zeros(1, channels, *(edge // latent_px for edge in size_px))
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    noise = comfy.sample.prepare_noise(latent, 0)
    return Samples(noise, text.context, text.pooled, torch.zeros(1, dtype=torch.long))
