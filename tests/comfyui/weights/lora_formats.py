"""LoRAs in the forms in which trainers write them, and what each adds to the fused weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

HIDDEN, MLP = 128, 512  # of the golden model "b"
RANK = 4
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
PROJ = "diffusion_model.double_blocks.0.img_attn.proj.weight"
LINEAR1 = "diffusion_model.single_blocks.1.linear1.weight"
Rows = tuple[int, int]
Delta = dict[str, list[tuple[Rows, Tensor]]]
"""Changes of a weight's rows, by the host's keys."""


@dataclass(frozen=True)
class LoRA:
    """A file, and what it adds; None where that depends on the weight."""

    file: dict[str, Tensor]
    delta: Delta | None

    def added_to(self, state: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
        """Return weights with the changes, float64."""
        assert self.delta is not None
        state = {name: tensor.double().clone() for name, tensor in state.items()}
        for key, changes in self.delta.items():
            for (start, rows), change in changes:
                state[key][start : start + rows] += strength * change
        return state


# Layers as diffusers has them, and the rows of the host's that they are.
PROJECTIONS = {
    "transformer_blocks.0.attn.to_q": (QKV, (0, HIDDEN)),
    "transformer_blocks.0.attn.to_v": (QKV, (2 * HIDDEN, HIDDEN)),
    "transformer_blocks.0.attn.to_out.0": (PROJ, (0, HIDDEN)),
    "single_transformer_blocks.1.attn.to_k": (LINEAR1, (HIDDEN, HIDDEN)),
    "single_transformer_blocks.1.proj_mlp": (LINEAR1, (3 * HIDDEN, MLP)),
}
FUSED = {key: (key, (0, rows)) for key, rows in ((QKV, 384), (PROJ, 128), (LINEAR1, 896))}
Parts = Callable[[int, torch.Generator], tuple[dict[str, Tensor], Tensor]]


def _random(draw: torch.Generator, *shape: int) -> Tensor:
    return 0.3 * torch.randn(shape, generator=draw)


def _product(down: str, up: str, alpha: float | None = None) -> Parts:
    def parts(rows: int, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        b, a = _random(draw, rows, RANK), _random(draw, RANK, HIDDEN)
        scale = 1.0 if alpha is None else alpha / RANK
        tensors = {down: a, up: b} | ({} if alpha is None else {"alpha": torch.tensor(alpha)})
        return tensors, scale * b.double() @ a.double()

    return parts


def _kronecker(rows: int, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    w1, w2 = _random(draw, rows // 16, 8), _random(draw, 16, 16)
    return {"lokr_w1": w1, "lokr_w2": w2}, torch.kron(w1.double(), w2.double())


def _hadamard(rows: int, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    shapes = ((rows, RANK), (RANK, HIDDEN)) * 2
    tensors = {name: _random(draw, *shape) for name, shape in zip(names, shapes, strict=True)}
    first, second, third, fourth = (tensor.double() for tensor in tensors.values())
    return {**tensors, "alpha": torch.tensor(2.0)}, 2 / RANK * (first @ second) * (third @ fourth)


def _decomposed(rows: int, draw: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    tensors, change = _product("lora_A.weight", "lora_B.weight")(rows, draw)
    return {**tensors, "dora_scale": 1 + _random(draw, rows, 1).abs()}, change


def _kohya(key: str) -> str:
    name = key.removeprefix("diffusion_model.").removesuffix(".weight")
    return f"lora_unet_{name.replace('.', '_')}"


PEFT, KOHYA = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")
# Format -> its layers, how it names them, and what it holds of each.
FORMATS = {
    "kohya": (FUSED, _kohya, _product(*KOHYA, alpha=2.0)),
    "diffusers": (PROJECTIONS, "transformer.{}".format, _product(*PEFT)),
    "BFL": (FUSED, lambda key: key.removesuffix(".weight"), _product(*PEFT)),
    "OneTrainer": (
        PROJECTIONS,
        lambda name: f"lora_transformer_{name.replace('.', '_')}",
        _product(*KOHYA, alpha=1.0),
    ),
    "LoKr": (PROJECTIONS, lambda name: f"lycoris_{name.replace('.', '_')}", _kronecker),
    "LoHa": (PROJECTIONS, lambda name: f"lycoris_{name.replace('.', '_')}", _hadamard),
    "DoRA": (PROJECTIONS, "transformer.{}".format, _decomposed),
}


def make(name: str) -> LoRA:
    """Make a random LoRA of a format for the golden model "b"."""
    draw = torch.Generator().manual_seed(sum(map(ord, name)))
    layers, named, parts = FORMATS[name]
    file: dict[str, Tensor] = {}
    delta: Delta = {}
    for layer, (key, rows) in layers.items():
        tensors, change = parts(rows[1], draw)
        file |= {f"{named(layer)}.{part}": tensor for part, tensor in tensors.items()}
        delta.setdefault(key, []).append((rows, change))
    return LoRA(file, None if name == "DoRA" else delta)
