"""What a comparison of many prompts is: dataclasses with a sentence under each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import bounds
from ..config.bounds import ConfigError, at_least
from ..config.file import Section
from .measurement import ANOTHER_SEED

MOST_PICTURES = 16


@dataclass(frozen=True)
class Candidate(Section):
    """One model that is compared with the teacher."""

    name: str = ""
    """What the report calls it; empty takes the file or the radius."""

    file: str = ""
    """A CLEAR file in ``models/clear``; empty takes the window below, without weights."""

    strength: float = 1.0
    """Share of the file's weights."""

    radius: int = 0
    """Radius of the window in tokens; 0 takes the file's."""

    radii: str = ""
    """Other radii per block, such as "double 0-3: 8", without a file."""

    pool_factor: int = 0
    """Edge of a pooled cell in tokens, without a file; 0 has no pooled branch."""

    start_percent: float = 0.0
    """Share of the schedule before which attention stays full, without a file."""

    end_percent: float = 1.0
    """Share of the schedule after which attention is full again, without a file."""

    dense_blocks: str = ""
    """Blocks that keep full attention, such as "double 0-3", without a file."""

    def __post_init__(self) -> None:
        at_least(self, "candidates", radius=0, pool_factor=0)
        bounds.finite("candidates.strength", self.strength)
        bounds.radii("candidates.radii", self.radii)
        if not 0 <= self.start_percent < self.end_percent <= 1:
            raise ConfigError(
                "A candidate's start_percent must be smaller than its end_percent, both from 0 to "
                f"1, got {self.start_percent:g} and {self.end_percent:g}."
            )
        if not self.file and not self.radius:
            raise ConfigError("A candidate must have a file or a radius, got neither.")
        if self.file and any((self.radii, self.pool_factor, self.dense_blocks)):
            raise ConfigError(
                f"The candidate {self.file} must not have radii, pool_factor or dense_blocks: a "
                "file has its own window."
            )

    @property
    def title(self) -> str:
        """What the report calls it."""
        if self.name or self.file:
            return self.name or self.file
        return f"r = {self.radius}" + (f", {self.radii}" if self.radii else "")


@dataclass(frozen=True)
class Sampling(Section):
    """What is painted, and how; the names are KSampler's."""

    prompts: Path = Path("prompts.txt")
    """Text file with one prompt per line."""

    first: int = 0
    """How many prompts of the file are passed over."""

    count: int = 0
    """How many prompts are painted; 0 takes all that follow."""

    pictures: int = 1
    """Seeds per prompt."""

    seed: int = 0
    """Seed of the first picture; each next one has the next seed."""

    negative: str = ""
    """Prompt of what is not shown; it counts with a cfg other than 1."""

    width: int = 1024
    """Of a picture, in pixels."""

    height: int = 1024
    """Of a picture, in pixels."""

    steps: int = 20
    """Sampling steps."""

    cfg: float = 1.0
    """Classifier-free guidance; 1 is right for guidance-distilled models."""

    guidance: float = 3.5
    """Guidance given to guidance-distilled models."""

    sampler: str = "euler"
    """Name of the sampler."""

    scheduler: str = "simple"
    """Name of the scheduler."""

    def __post_init__(self) -> None:
        at_least(self, "sampling", first=0, count=0, pictures=1, steps=1, cfg=0, guidance=0)
        bounds.seed("sampling.seed", self.seed)
        bounds.sizes("sampling.height, width", [(self.height, self.width)])
        if self.pictures > MOST_PICTURES:
            raise ConfigError(
                f"sampling.pictures must be at most {MOST_PICTURES}, got {self.pictures}."
            )


@dataclass(frozen=True)
class CompareConfig(Section):
    """A whole comparison."""

    output: Path
    """Folder of the rows, the report and the sheets; it is made."""

    candidates: tuple[Candidate, ...]
    """What is compared with the teacher."""

    loaders: Mapping[str, Mapping[str, Any]]
    """ComfyUI nodes that load ``model``, ``clip`` and ``vae``: each a table with the node's id
    under ``node`` and its inputs."""

    vision: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """ComfyUI nodes that load vision models, by the names that the report gives them, such as
    ``CLIP`` and ``DINO``."""

    sheets: int = 8
    """Of how many prompts, the first ones, pictures are kept."""

    comfyui: Path | None = None
    """Folder of ComfyUI, where it is not two above this pack."""

    base_directory: Path | None = None
    """ComfyUI's ``--base-directory``: its models and custom nodes, where they lie elsewhere."""

    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        at_least(self, "comparison", sheets=0)
        bounds.loaders(self.loaders, ("model", "clip", "vae"))
        titles = [each.title for each in self.candidates]
        if not titles:
            raise ConfigError("The settings need at least one table [[candidates]], got none.")
        taken = [title for title in titles if title == ANOTHER_SEED or title.startswith("model,")]
        if taken:
            raise ConfigError(f"Candidates must not have a reference's name, got {taken[0]!r}.")
        twice = [title for title in titles if titles.count(title) > 1]
        if twice:
            raise ConfigError(f"Candidates must have different names, got {twice[0]!r} twice.")
