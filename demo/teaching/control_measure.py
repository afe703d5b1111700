"""What the demo's ControlNet does: how far paintings are from the picture that it is shown."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import comfy.sample
import comfy.sd
import torch
import torch.nn.functional as F
from torch import Tensor

from clear_attention.comfyui.controlnet.node import with_local_attention
from clear_attention.comfyui.controlnet.settings import ControlSettings
from clear_attention.comfyui.core.patch import with_window
from clear_attention.comfyui.core.settings import WindowSettings
from clear_attention.families import DEFAULT

from ..codec.vae_file import vae_weights
from ..markdown import README, replace_between
from ..nodes.control import load_control_net, steered
from ..nodes.network import load_model
from ..nodes.text import DemoCLIP
from ..students import GUIDANCE, TRAINED_PX
from .control import blurred
from .photographs import PHOTOGRAPHS, squares

MARKS = tuple(f"<!-- {mark} demo/teaching/control_measure.py -->" for mark in ("from", "end of"))
STEPS, BLUR, SEED = 16, 8, 9_000
RADIUS = 8

Shown = Sequence[tuple[str, Tensor]]
"""Prompts, each with the picture ``[H, W, 3]`` that the net is shown blurred."""


def main() -> None:
    """Paint, compare, and write a table into demo/README.md."""
    replace_between(README, table(), *MARKS)


def table() -> str:
    """Compare paintings of each subject, for its own prompt and for another one's."""
    own = [(photograph.phrases[0], held_out(photograph)) for photograph in PHOTOGRAPHS]
    prompts = [prompt for prompt, _ in own]
    others = list(zip(prompts[1:] + prompts[:1], (picture for _, picture in own), strict=True))
    model, net = load_model(), load_control_net()
    local = with_local_attention(net, ControlSettings(RADIUS))
    clear = with_window(model, WindowSettings(RADIUS))
    lines = [
        f"| prompt | without | with the net | both behind r = {RADIUS} |",
        "|---|---|---|---|",
    ]
    for name, shown in (("of the picture", own), ("of another picture", others)):
        cells = (distance(model, None, shown), distance(model, net, shown))
        cells = (*cells, distance(clear, local, shown))
        lines.append(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def held_out(photograph: Any) -> Tensor:
    """Cut a square that training has not seen in this very place."""
    draw = random.Random(f"control, held out {photograph.file}")
    return next(squares(photograph.load(), TRAINED_PX, draw))


@torch.inference_mode()
def distance(model: Any, net: Any, shown: Shown) -> float:
    """Return the mean over all prompts of `difference` to what the net is shown."""
    vae, found = comfy.sd.VAE(vae_weights()), 0.0
    for number, (prompt, picture) in enumerate(shown):
        hint = blurred(picture[None], BLUR)
        painted = vae.decode(paint(model, prompt, net, hint, vae, SEED + number))
        found += difference(painted, hint) / len(shown)
    return found


def paint(model: Any, prompt: str, net: Any, hint: Tensor, vae: Any, seed: int) -> Tensor:
    """Sample a latent, controlled by a picture ``[1, H, W, 3]`` if there is a net."""
    clip = DemoCLIP()
    ((context, extra),) = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    extra["guidance"] = GUIDANCE
    if net is not None:
        extra |= steered(net, hint, vae)
    latent = torch.zeros(1, 16, *(edge // DEFAULT.latent_px for edge in hint.shape[1:3]))
    noise = comfy.sample.prepare_noise(latent, seed)
    conditioning = [[context, extra]]
    return comfy.sample.sample(
        *(model, noise, STEPS, 1.0, "euler", "simple", conditioning, conditioning, latent),
        disable_pbar=True,
    )


def difference(painted: Tensor, hint: Tensor) -> float:
    """Return the root mean square difference of two pictures ``[1, H, W, 3]``, both blurred.

    They are compared as means over squares as large as what the net's picture was shrunk by.
    """
    means = [F.avg_pool2d(x.cpu().float().movedim(-1, 1), BLUR) for x in (painted, hint)]
    return float((means[0] - means[1]).square().mean().sqrt())
