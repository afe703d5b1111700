"""A LoRA of the demo's model: what is trained, and its file in the names of kohya's trainer."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clear_attention.distill import losses
from clear_attention.distill.config import Training
from clear_attention.distill.data.batches import Batch
from clear_attention.distill.denoiser import Denoiser
from clear_attention.distill.tasks import Task, frozen

RANK = 8
LAYERS = (  # the picture's projections and MLPs; text and modulation stay
    *("img_attn.qkv", "img_attn.proj", "img_mlp.0", "img_mlp.2"),
    *("linear1", "linear2"),
)


class Change(nn.Module):
    """What a LoRA adds to one linear layer: B A x, and nothing at the start."""

    def __init__(self, layer: nn.Linear, rank: int, draw: torch.Generator) -> None:
        super().__init__()
        down = torch.randn(rank, layer.in_features, generator=draw)
        self.down = nn.Parameter(down / math.sqrt(layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the layer's output."""
        return F.linear(F.linear(x, self.down), self.up)


class LoRATraining(Task):
    """Trains changes of a frozen network on data (rectified flow)."""

    def __init__(self, denoiser: Denoiser, training: Training, rank: int = RANK) -> None:
        super().__init__(denoiser, training)
        draw = torch.Generator().manual_seed(training.seed)
        self.layers = {
            name: module
            for name, module in denoiser.network.named_modules()
            if isinstance(module, nn.Linear) and name.endswith(LAYERS)
        }
        self.changes = nn.ModuleDict(
            {_key(name): Change(layer, rank, draw) for name, layer in self.layers.items()}
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the flow-matching error."""
        noisy, latent = self.noisy(batch)
        velocity = self.denoiser.velocity(
            noisy, batch.sigma, batch.samples, guidance=self.settings.guidance
        )
        return {"loss": losses.flow_matching(velocity, latent, batch.noise)}

    @contextmanager
    def context(self) -> Generator[None]:
        """Prepare the model and put the changes in."""
        handles = [
            layer.register_forward_hook(lambda _, args, out, change=change: out + change(args[0]))
            for layer, change in zip(self.layers.values(), self.changes.values(), strict=True)
        ]
        try:
            with super().context(), frozen(self.denoiser.network):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def file(self) -> Mapping[str, Tensor]:
        """Return the changes as the tensors of a LoRA file, float16."""
        tensors: dict[str, Tensor] = {}
        for key, change in self.changes.items():
            assert isinstance(change, Change)
            tensors[f"lora_unet_{key}.lora_down.weight"] = change.down.detach().half()
            tensors[f"lora_unet_{key}.lora_up.weight"] = change.up.detach().half()
            tensors[f"lora_unet_{key}.alpha"] = torch.tensor(float(len(change.down))).half()
        return tensors


def _key(layer: str) -> str:
    return layer.replace(".", "_")
