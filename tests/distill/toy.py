"""A model of two blocks in plain torch, for what of the trainer needs no ComfyUI.

It has FLUX's names and real CLEAR attention, so that a window matters and can be learned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from clear_attention import Pooling, TokenLayout, attention
from clear_attention.distill.config import Loss, Optimiser, StudentConfig, Training
from clear_attention.distill.data.shards import Samples, ShardFolder
from clear_attention.distill.denoiser import Local, Recorder
from clear_attention.distill.identity import fingerprint
from clear_attention.families.flux import NAMES as FLUX
from clear_attention.families.names import ModelSize

HIDDEN, CHANNELS, TEXT = 32, 4, 3
GRID = 6

ADAMW = Optimiser("adamw", 1e-2, weight_decay=1e-3, warmup_steps=2, cosine_to=0.1)
TRAINING = Training(steps=12, batch=4, precision="float32", save_every=3, log_every=1)
STUDENT = StudentConfig(radius=2)
# The toy has learned nothing, so that the data would lead away from it.
LOSS = Loss(flow=0.0, attention_blocks="double 0, single 0")


class Attention(nn.Module):
    """The image side of a block: fused projections, attention, output."""

    def __init__(self, behind: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN + behind)
        self.proj = nn.Linear(HIDDEN, HIDDEN)


class Network(nn.Module):
    """One double and one single block with FLUX's names."""

    def __init__(self) -> None:
        super().__init__()
        self.img_in, self.out = nn.Linear(CHANNELS + 1, HIDDEN), nn.Linear(HIDDEN, CHANNELS)
        self.positions = nn.Parameter(torch.randn(GRID * GRID, HIDDEN))
        double, single = nn.Module(), nn.Module()
        double.img_attn = Attention(0)
        single.linear1 = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.double_blocks, self.single_blocks = nn.ModuleList([double]), nn.ModuleList([single])


class Toy:
    """A `Denoiser`: latents ``[B, 4, 6, 6]``, three text tokens of the hidden width."""

    table, size = FLUX, ModelSize(HIDDEN, {"double": 1, "single": 1}, 0)

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network = Network()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.network.state_dict())

    def latent_in(self, latent: Tensor) -> Tensor:
        return latent

    @contextlib.contextmanager
    def training(self, checkpointing: bool = False) -> Iterator[None]:
        yield

    def velocity(
        self,
        noisy: Tensor,
        sigma: Tensor,
        samples: Samples,
        *,
        guidance: float,
        local: Local | None = None,
        recorder: Recorder | None = None,
    ) -> Tensor:
        network = self.network
        level = sigma.view(-1, 1, 1, 1).expand(-1, 1, GRID, GRID)
        tokens = torch.cat([noisy, level], 1).flatten(2).transpose(1, 2)
        x = torch.cat([samples.context.float(), network.img_in(tokens) + network.positions], 1)
        double, single = network.double_blocks[0], network.single_blocks[0]
        seen = self.attend(double.img_attn.qkv(x), ("double", 0), local, recorder)
        x = x + double.img_attn.proj(seen)
        fused = single.linear1(torch.nn.functional.layer_norm(x, x.shape[-1:]))
        seen = self.attend(fused[..., : 3 * HIDDEN], ("single", 0), local, recorder)
        x = x + seen + torch.tanh(fused[..., 3 * HIDDEN :])
        image = network.out(x[:, TEXT:]).transpose(1, 2)
        return image.unflatten(2, (GRID, GRID))

    def attend(
        self, qkv: Tensor, block: tuple[str, int], local: Local | None, recorder: Recorder | None
    ) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        if local is None:
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            weight = local.pooling_weights.get(block)
            pooling = None if weight is None else Pooling(weight.shape[0], weight)
            layout = TokenLayout(TEXT, GRID, GRID)
            out = attention(
                q, k, v, layout, local.window_of(block), pooling=pooling, backend=local.backend
            )
        out = out.transpose(1, 2).flatten(2)
        if recorder is not None:
            recorder.add(block, out)
        return out


def samples(count: int, seed: int = 0, grid: int = GRID) -> Samples:
    """Draw samples; two prompts take turns."""
    draw = torch.Generator().manual_seed(seed)
    prompts = torch.randn(2, TEXT, HIDDEN, generator=draw)
    which = torch.arange(count) % 2
    return Samples(
        latent=torch.randn(count, CHANNELS, grid, grid, generator=draw),
        context=prompts[which],
        pooled=prompts[which].mean(1),
        seed=torch.arange(count),
    )


def data(folder: Path, count: int = 16) -> ShardFolder:
    """Write samples as two shards, unless they are there."""
    shards = ShardFolder(folder, {"toy": count})
    for number in range(len(shards.shards), 2):
        shards.add(samples(count // 2, seed=number))
    return shards


def trainer(folder: Path, training: Training = TRAINING, student: StudentConfig = STUDENT, **rest):
    """Make a trainer of a student of the toy in a folder."""
    from clear_attention.distill.data.batches import Batches
    from clear_attention.distill.data.held_out import HeldOut
    from clear_attention.distill.tasks import Distillation
    from clear_attention.distill.trainer import Trainer

    optimiser = rest.pop("optimiser", ADAMW)
    task = Distillation(Toy(rest.pop("teacher", 0)), training, student, rest.pop("loss", LOSS))
    shards = rest.pop("data", None) or data(folder / "data")
    return Trainer(
        task,
        Batches(shards, training),
        training,
        optimiser,
        folder / "run",
        HeldOut(shards, training),
        **rest,
    )
