"""What is trained, and with which losses: a model from nothing, or a student of its teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..distill import losses
from ..families.block_text import format_radii, parse_blocks, parse_radii, require_blocks
from ..families.names import Block
from ..window import Window
from .config import Loss, StudentConfig, Training
from .data.batches import Batch
from .denoiser import Denoiser, Local, Recorder
from .student import Student


class Task(nn.Module):
    """Trainable parameters, and the losses of a batch.

    The frozen model is not a submodule: neither copied, nor sent between processes, nor saved.
    """

    criterion = "loss"
    """Name of the loss by which validations are compared."""

    def __init__(self, denoiser: Denoiser, training: Training) -> None:
        super().__init__()
        self._frozen = (denoiser,)
        self.settings = training

    @property
    def denoiser(self) -> Denoiser:
        """The model."""
        return self._frozen[0]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name; ``loss`` is what is minimised."""
        raise NotImplementedError

    def made_with(self) -> dict[str, Any]:
        """Return what the result depends on beside training and optimiser, by section."""
        return {}

    def context(self) -> AbstractContextManager[None]:
        """Prepare the model: around the forward and the backward pass."""
        return self.denoiser.training(self.settings.gradient_checkpointing)

    def noisy(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the noisy and the clean latents in the network's range."""
        latent = self.denoiser.latent_in(batch.samples.latent.float())
        return losses.mix(latent, batch.noise, batch.sigma), latent


class FlowMatching(Task):
    """Trains all weights of a network on data (rectified flow)."""

    def __init__(self, denoiser: Denoiser, training: Training) -> None:
        super().__init__(denoiser, training)
        self.network = denoiser.network.requires_grad_(True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the flow-matching error."""
        noisy, latent = self.noisy(batch)
        velocity = self.denoiser.velocity(
            noisy,
            batch.sigma,
            batch.samples,
            guidance=self.settings.guidance,
        )
        return {"loss": losses.flow_matching(velocity, latent, batch.noise)}


class Distillation(Task):
    """Trains a student to attend locally and predict what its teacher does."""

    criterion = "prediction"

    def __init__(
        self,
        denoiser: Denoiser,
        training: Training,
        student: StudentConfig,
        loss: Loss,
    ) -> None:
        super().__init__(denoiser, training)
        size = dataclasses.replace(denoiser.size, pool_factor=student.pool_factor)
        self.student = Student(denoiser.table, size, student.rank, training.seed)
        self.form = student
        self.window = Window(student.radius)
        self.radii = radii_of(student, denoiser.size.blocks)
        self.backend = student.backend
        self.loss = loss
        self.blocks = compared_blocks(loss.attention_blocks, denoiser.size.blocks)

    def made_with(self) -> dict[str, Any]:
        """Return the student's form, the losses and the teacher's fingerprint."""
        student = dataclasses.asdict(self.form)
        del student["backend"]  # all compute the same
        if self.radii:
            student["radii"] = format_radii(self.radii)
        else:  # states of runs that had no such setting go on
            del student["radii"]
        compared = ", ".join(f"{kind} {index}" for kind, index in sorted(self.blocks))
        return {
            "student": student,
            "loss": {**dataclasses.asdict(self.loss), "attention_blocks": compared},
            "teacher": self.denoiser.fingerprint,
        }

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the paper's three losses and their weighted sum."""
        noisy, latent = self.noisy(batch)
        of_teacher, of_student = Recorder(self.blocks), Recorder(self.blocks)
        with torch.no_grad(), self.student.silenced():
            teacher = self.velocity(noisy, batch, None, of_teacher)
        student = self.velocity(noisy, batch, self.local, of_student)
        terms = {
            "flow": losses.flow_matching(student, latent, batch.noise),
            "prediction": losses.prediction(student, teacher),
            "attention": losses.attention(of_student.outputs, of_teacher.outputs),
        }
        total = sum(getattr(self.loss, name) * term for name, term in terms.items())
        return {"loss": torch.as_tensor(total), **terms}

    @contextmanager
    def context(self) -> Generator[None]:
        """Prepare the model and attach the student, which a recomputed block needs too."""
        network = self.denoiser.network
        with super().context(), frozen(network), self.student.attached(network):
            yield

    @property
    def local(self) -> Local:
        """The student's attention."""
        return Local(self.window, self.student.pooling_weights, self.backend, self.radii)

    def velocity(
        self, noisy: Tensor, batch: Batch, local: Local | None, recorder: Recorder | None = None
    ) -> Tensor:
        """Predict the velocity with local or with full attention."""
        return self.denoiser.velocity(
            noisy,
            batch.sigma,
            batch.samples,
            guidance=self.settings.guidance,
            local=local,
            recorder=recorder,
        )


@contextmanager
def frozen(network: nn.Module) -> Generator[None]:
    """Ask for no gradients of a network's own weights; afterwards it is as before."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def radii_of(student: StudentConfig, counts: Mapping[str, int]) -> dict[Block, int]:
    """Read which blocks have a radius of their own.

    Args:
        student: What is distilled.
        counts: Number of blocks by kind.

    Raises:
        ValueError: A block is none of the model.
    """
    radii = parse_radii(student.radii, "student.radii")
    require_blocks(radii, counts, "student.radii")
    return radii


def compared_blocks(text: str, counts: Mapping[str, int]) -> frozenset[Block]:
    """Read which blocks' attention outputs are compared.

    Args:
        text: Such as "single 1, single 5-9"; empty takes every fourth block of the last kind that
            there is, from the second on.
        counts: Number of blocks by kind.

    Raises:
        ValueError: An entry is no block of the model.
    """
    if not text.strip():
        kind, count = [(kind, count) for kind, count in counts.items() if count][-1]
        return frozenset((kind, index) for index in range(min(1, count - 1), count, 4))
    blocks = parse_blocks(text, "loss.attention_blocks")
    require_blocks(blocks, counts, "loss.attention_blocks")
    return blocks
