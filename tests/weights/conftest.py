"""Made-up checkpoints in the published form, small enough to write many of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

Make = Callable[..., dict[str, Tensor]]


@pytest.fixture(scope="session")
def published() -> Make:
    """Make the tensors of a published checkpoint, names and shapes written down a second time."""

    def make(
        hidden: int = 6,
        double: int = 2,
        single: int = 3,
        factor: int = 0,
        dtype: torch.dtype = torch.bfloat16,
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(hidden + 10 * double + 100 * single)
        tensors: dict[str, Tensor] = {}

        def add(name: str, *shape: int) -> None:
            tensors[name] = torch.randn(*shape, generator=generator).to(dtype)

        for prefix, count, layers in (
            ("transformer_blocks", double, ("to_q", "to_k", "to_v", "to_out.0")),
            ("single_transformer_blocks", single, ("to_q", "to_k", "to_v")),
        ):
            for index in range(count):
                for layer in layers:
                    add(f"{prefix}.{index}.attn.{layer}.weight", hidden, hidden)
                    add(f"{prefix}.{index}.attn.{layer}.bias", hidden)
                if factor:
                    name = f"{prefix}.{index}.attn.processor.spatial_weight"
                    add(name, 1, 1, 1, factor, 1, factor, 1)
        return tensors

    return make


@pytest.fixture(scope="session")
def low_rank(published: Make) -> Make:
    """Make the tensors of a low-rank checkpoint for the model of a published one."""

    def make(
        rank: int = 2, dtype: torch.dtype = torch.bfloat16, **kwargs: int
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(rank)
        tensors: dict[str, Tensor] = {}
        for name, tensor in published(dtype=dtype, **kwargs).items():
            if name.endswith(".weight"):
                layer, hidden = f"transformer.{name.removesuffix('.weight')}", len(tensor)
                for part, shape in (("A", (rank, hidden)), ("B", (hidden, rank))):
                    values = torch.randn(shape, generator=generator).to(dtype)
                    tensors[f"{layer}.lora_{part}.weight"] = values
            elif name.endswith(".spatial_weight"):
                tensors[name] = tensor
        return tensors

    return make


@pytest.fixture
def published_file(published: Make, tmp_path: Path) -> Callable[..., Path]:
    """Write made-up published tensors into a file, with changes: None removes a tensor."""

    def write(
        name: str = "clear_local_8.safetensors",
        changes: dict[str, Tensor | None] | None = None,
        metadata: dict[str, str] | None = None,
        **kwargs: object,
    ) -> Path:
        tensors = {**published(**kwargs), **(changes or {})}
        path = tmp_path / name
        save_file({key: t for key, t in tensors.items() if t is not None}, path, metadata)
        return path

    return write


@pytest.fixture(scope="session")
def raw_file() -> Callable[..., bytes]:
    """Assemble a .safetensors file from a header, which need not be right."""

    def assemble(header: object, data: bytes = b"", length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return (len(text) if length is None else length).to_bytes(8, "little") + text + data

    return assemble
