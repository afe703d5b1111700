"""Train the demo's picture decoder: TAESD's network learns to undo ``latents.encode``.

Needs scikit-image and scikit-learn for their photographs, and 10 to 15 minutes on one core with
bfloat16 instructions. Seeded: the same machine gives the same file.
"""

from __future__ import annotations

import copy
import math
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from clear_attention.atomic_files import written_whole
from demo.codec.crops import Crops
from demo.codec.decoder_start import marking_decoder
from demo.codec.latents import FLUX_SCALE, FLUX_SHIFT, encode
from demo.codec.vae_file import DECODER, SCALE

SEED = 0
STEPS = 7000
BATCH = 4
CROP_PX = 64
LEARNING_RATE = 1e-3
WARM_UP = 50
NOISE = 0.1  # largest; in units of what FLUX sees, where latents have about unit variance
EDGES = 1.0  # weight of the gradient's error against the pixels'
AVERAGE = 0.998  # share of the old weights in the average that is kept
REPORT_EVERY = 100


def main() -> None:
    """Train and write the decoder."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    network = train(Crops.of_photographs(CROP_PX))
    DECODER.parent.mkdir(exist_ok=True)
    tensors = {name: w.bfloat16().contiguous() for name, w in network.state_dict().items()}
    with written_whole(DECODER) as part:
        save_file(tensors, part)
    print(f"Wrote {DECODER}")


def train(crops: Crops) -> nn.Sequential:
    """Train on crops and return the averaged network."""
    network = marking_decoder()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - it can
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
    draw = torch.Generator().manual_seed(SEED)
    start, total = time.perf_counter(), 0.0
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        images = crops.draw(BATCH, draw)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = network(noisy_input(images, draw))
        loss = distance(decoded.float(), images.permute(0, 3, 1, 2))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        update_average(average, network, step)
        total += loss.item()
        if (step + 1) % REPORT_EVERY == 0:
            seconds = time.perf_counter() - start
            print(f"{step + 1:5} {seconds:6.0f} s  loss {total / REPORT_EVERY:.4f}", flush=True)
            total = 0.0
    return average


def noisy_input(images: Tensor, draw: torch.Generator) -> Tensor:
    """Encode ``[B, H, W, 3]`` as the decoder gets it, with up to ``NOISE`` of noise."""
    latents = (encode(images) - FLUX_SHIFT) * FLUX_SCALE
    strength = NOISE * torch.rand(len(images), 1, 1, 1, generator=draw)
    latents = latents + strength * torch.randn(latents.shape, generator=draw)
    return (latents * SCALE / FLUX_SCALE).contiguous(memory_format=torch.channels_last)


def distance(decoded: Tensor, images: Tensor) -> Tensor:
    """Compare ``[B, 3, H, W]``: pixels, and their steps across and down, so that edges stay."""
    error = decoded - images
    steps = (error.diff(dim=dim).abs().mean() for dim in (2, 3))
    return F.l1_loss(decoded, images) + EDGES * sum(steps, torch.zeros(()))


def learning_rate(step: int) -> float:
    """Rise for ``WARM_UP`` steps, then fall along a cosine to zero."""
    return LEARNING_RATE * min((step + 1) / WARM_UP, (1 + math.cos(math.pi * step / STEPS)) / 2)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int) -> None:
    """Move the averaged weights towards the network's; early on faster, to forget the start."""
    share = 1 - min(AVERAGE, (step + 1) / (step + 10))
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, share)


if __name__ == "__main__":
    main()
