"""What a run is: dataclasses with a sentence under each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backends import BACKENDS
from ..config import bounds
from ..config.bounds import ConfigError, at_least, one_of
from ..config.file import Section

OPTIMISERS = ("prodigy", "adamw", "adamw8bit")
PRECISIONS = ("bf16", "float32")
TIMESTEPS = ("uniform", "logit_normal")
AUTOMATIC_RATES = {"prodigy": 1.0, "adamw": 1e-4, "adamw8bit": 1e-4}
LARGEST_ADAMW_RATE = 0.1

__all__ = ("ConfigError", "one_of")


@dataclass(frozen=True)
class StudentConfig(Section):
    """What is distilled."""

    radius: int = 16
    """Radius of the window in tokens."""

    pool_factor: int = 0
    """Edge of a pooled cell in tokens; 0 has no pooled branch."""

    rank: int = 0
    """Rank of the change to each projection; 0 trains whole matrices and their biases."""

    backend: str = "auto"
    """Backend of the local attention."""

    radii: str = ""
    """Radius of the blocks that have another one, such as "double 0-3: 8, single 0: 32"."""

    def __post_init__(self) -> None:
        at_least(self, "student", radius=1, pool_factor=0, rank=0)
        bounds.radii("student.radii", self.radii)
        one_of("student.backend", self.backend, ("auto", *BACKENDS))


@dataclass(frozen=True)
class Loss(Section):
    """Weights of the losses, as the paper has them (arXiv 2412.16112)."""

    flow: float = 1.0
    """Weight of the flow-matching error against the data."""

    prediction: float = 0.5
    """Weight of the difference to the teacher's velocity."""

    attention: float = 0.5
    """Weight of the difference to the teacher's attention outputs."""

    attention_blocks: str = ""
    """Blocks whose attention outputs are compared, such as "single 1, single 5-9"; empty takes
    every fourth of the last kind of block, from the second on, as the paper does."""

    def __post_init__(self) -> None:
        at_least(self, "loss", flow=0, prediction=0, attention=0)
        if self.flow == self.prediction == self.attention == 0:
            raise ConfigError("One of loss.flow, .prediction and .attention must be above 0.")


@dataclass(frozen=True)
class Optimiser(Section):
    """How weights are updated."""

    name: str = "prodigy"
    """``prodigy``, which finds its own step size, ``adamw``, or ``adamw8bit``, which has a
    quarter of AdamW's memory and needs bitsandbytes."""

    learning_rate: float = 0.0
    """Step size, for Prodigy a factor on its own; 0 takes 1 for Prodigy, 1e-4 for AdamW."""

    weight_decay: float = 1e-4
    """Decoupled decay of what is trained; a student is its difference to the teacher."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the running averages of gradients and of their squares."""

    warmup_steps: int = 0
    """Steps over which the step size grows from zero."""

    cosine_to: float = 1.0
    """Share of the step size that is left at the last step of a cosine decay; 1 keeps it."""

    clip_norm: float = 1.0
    """Largest norm of the gradient; larger ones are scaled down."""

    def __post_init__(self) -> None:
        one_of("optimiser.name", self.name, OPTIMISERS)
        at_least(self, "optimiser", learning_rate=0, weight_decay=0, warmup_steps=0, clip_norm=0)
        for beta in self.betas:
            bounds.share("optimiser.betas", beta, whole=False)
        bounds.share("optimiser.cosine_to", self.cosine_to, whole=True)
        if self.name != "prodigy" and self.learning_rate >= LARGEST_ADAMW_RATE:
            raise ConfigError(
                f"optimiser.learning_rate must be below {LARGEST_ADAMW_RATE} for {self.name}, "
                f"whose updates are about as large, got {self.learning_rate}: take 1e-4, or 0 for "
                "the default; 1 is for prodigy."
            )

    @property
    def rate(self) -> float:
        """The step size that is used."""
        return self.learning_rate or AUTOMATIC_RATES[self.name]


@dataclass(frozen=True)
class Training(Section):
    """How long and on what."""

    steps: int = 10_000
    """Updates of the weights."""

    batch: int = 32
    """Samples per update, over all processes."""

    batch_tokens: int = 0
    """Image tokens per update in place of `batch`: larger pictures make smaller batches."""

    accumulate: int = 1
    """Parts into which each process splits its share of a batch, one after the other."""

    seed: int = 0
    """Seed of the order of the data, of noise and of timesteps."""

    precision: str = "bf16"
    """``bf16`` computes in bfloat16 where it is safe; what is trained is float32 in any case."""

    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: a third more work, far less memory."""

    offload: bool = False
    """Keep the teacher in main memory; each block comes to the GPU while it computes."""

    timesteps: str = "uniform"
    """How noise levels are drawn: ``uniform`` in (0, 1] or ``logit_normal``."""

    timestep_mean: float = 0.0
    """Mean of the logit-normal distribution; larger is noisier."""

    own_noise: float = 0.0
    """Share of painted pictures that are seen with the noise from which they were painted, as the
    sampler sees them; the others get new noise, as the paper has it."""

    guidance: float = 3.5
    """Guidance given to guidance-distilled models."""

    ema_decay: float = 0.0
    """Decay of the running average of what is trained, which is the result then; 0 has none."""

    log_every: int = 10
    """Steps between lines of the log."""

    save_every: int = 250
    """Steps between resumable states; `output` is written anew with each."""

    keep_states: int = 2
    """How many states are kept, the last ones."""

    validate_every: int = 0
    """Steps between validations; 0 validates at the end only."""

    validation_samples: int = 0
    """Held-out pictures per validation, each once; 0 takes all."""

    patience: int = 0
    """Validations without a better held-out error after which the run ends; 0 never ends it."""

    def __post_init__(self) -> None:
        one_of("training.precision", self.precision, PRECISIONS)
        one_of("training.timesteps", self.timesteps, TIMESTEPS)
        at_least(self, "training", steps=1, batch=1, batch_tokens=0, accumulate=1, log_every=1)
        at_least(self, "training", save_every=1, keep_states=1)
        at_least(self, "training", validate_every=0, validation_samples=0, patience=0)
        at_least(self, "training", guidance=0)
        if self.offload and not self.gradient_checkpointing:
            raise ConfigError(
                "training.offload needs training.gradient_checkpointing = true: else the backward "
                "pass keeps all blocks on the GPU."
            )
        bounds.share("training.own_noise", self.own_noise, whole=True)
        bounds.share("training.ema_decay", self.ema_decay, whole=False)
        bounds.finite("training.timestep_mean", self.timestep_mean)
        bounds.seed("training.seed", self.seed)


@dataclass(frozen=True)
class Generation(Section):
    """Self-generated data: what the teacher paints for the student to learn from."""

    prompts: Path | None = None
    """Text file with one prompt per line; without one, data that is there already is used."""

    held_out: int = 16
    """How many prompts, the last of the file, are kept for validation."""

    samples: int = 10_000
    """Pictures to paint for training; prompts are repeated with other seeds as needed."""

    held_out_samples: int = 16
    """Pictures to paint for validation."""

    sizes_px: tuple[tuple[int, int], ...] = ((1024, 1024),)
    """Heights and widths, taken in turn."""

    steps: int = 20
    """Sampling steps."""

    sampler: str = "euler"
    """Name of the sampler, as in KSampler."""

    scheduler: str = "simple"
    """Name of the scheduler, as in KSampler."""

    cfg: float = 1.0
    """Classifier-free guidance; 1 is right for guidance-distilled models."""

    seed: int = 0
    """Seed of the first picture; each next one has the next seed."""

    batch: int = 1
    """Pictures painted at once."""

    shard: int = 64
    """Pictures per file."""

    def __post_init__(self) -> None:
        at_least(self, "generation", held_out=0, samples=1, held_out_samples=0, steps=1)
        at_least(self, "generation", batch=1, shard=1, cfg=0)
        bounds.seed("generation.seed", self.seed)
        bounds.sizes("generation.sizes_px", self.sizes_px)


@dataclass(frozen=True)
class Pictures(Section):
    """Pictures with captions to learn from, beside those that the teacher paints or alone."""

    folder: Path | None = None
    """Folder of pictures, each with its caption in a text file of the same name beside it."""

    held_out: int = 0
    """How many of them, spread over all names, are kept for validation."""

    area_px: int = 1_048_576
    """Pixels of a picture; each is scaled and cropped to about so many, in its own aspect ratio."""

    def __post_init__(self) -> None:
        at_least(self, "pictures", held_out=0, area_px=64 * 64)


@dataclass(frozen=True)
class RunConfig(Section):
    """A whole run."""

    output: Path
    """File to write: the checkpoint that ``CLEARLoader`` loads."""

    folder: Path
    """Where data, resumable states, the log and pictures are kept."""

    data: Path | None = None
    """Folder of the data, where it is not ``folder/data``: runs on one teacher share it."""

    base: str = ""
    """What is distilled, for the file's metadata; empty says nothing."""

    comfyui: Path | None = None
    """Folder of ComfyUI, where it is not two above this pack."""

    base_directory: Path | None = None
    """ComfyUI's ``--base-directory``: its models and custom nodes, where they lie elsewhere."""

    loaders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """ComfyUI nodes that load ``model`` and ``clip`` and, for pictures, ``vae``: each a table
    with the node's id under ``node`` and its inputs."""

    student: StudentConfig = StudentConfig()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    training: Training = Training()
    generation: Generation = Generation()
    pictures: Pictures = Pictures()

    @property
    def data_folder(self) -> Path:
        """Where the data is."""
        return self.data or self.folder / "data"
