"""Fixtures: narrow SD3 models that the host loads from files, and CLEAR files for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clear_attention.families.names import ModelSize
from clear_attention.families.sd3 import NAMES as SD3
from clear_attention.weights.checkpoint import save

Model = Callable[..., Any]

# A model -> what distinguishes it. The host makes as many blocks as heads, each head 64 wide.
SD3_MODELS: dict[str, dict[str, Any]] = {
    "3-medium": dict(depth=2),
    "3.5-large": dict(depth=2, qk_norm="rms"),
    "3.5-medium": dict(depth=3, qk_norm="rms", x_block_self_attn_layers=[0, 1]),
    "one block": dict(depth=1, qk_norm="rms", x_block_self_attn_layers=[0]),
}
SHARED = dict(
    input_size=None,
    patch_size=2,
    in_channels=16,
    out_channels=16,
    adm_in_channels=32,
    pos_embed_max_size=32,
    num_patches=32 * 32,
)
TEXT_WIDTH = 48
CLEAR_RADIUS = 4


def size_of(name: str, pool_factor: int = 0, image: bool = True) -> ModelSize:
    """Return the size of the CLEAR file for one of the models."""
    depth = SD3_MODELS[name]["depth"]
    twice = len(SD3_MODELS[name].get("x_block_self_attn_layers", ())) if image else 0
    return ModelSize(64 * depth, {"joint": depth, "image": twice}, pool_factor)


def sd3_weights(name: str) -> dict[str, Tensor]:
    """Make up a model's weights by the host's names, in float32, all of them with an effect."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

    sizes = SD3_MODELS[name]
    text = {"in_features": TEXT_WIDTH, "out_features": 64 * sizes["depth"]}
    embedder = {"target": "torch.nn.Linear", "params": text}
    model = MMDiT(
        **SHARED,
        **sizes,
        context_embedder_config=embedder,
        operations=comfy.ops.disable_weight_init,
    )
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.randn(tensor.shape, generator=generator) * (0.1 if tensor.ndim == 2 else 0.5)
        for key, tensor in model.state_dict().items()
    }


@pytest.fixture(scope="session")
def sd3_files(host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each model in ``diffusion_models`` and an empty ``clear``."""
    folder = tmp_path_factory.mktemp("sd3")
    (folder / "clear").mkdir()
    (folder / "diffusion_models").mkdir()
    for name in SD3_MODELS:
        save_file(sd3_weights(name), folder / "diffusion_models" / f"{name}.safetensors")
    return folder


@pytest.fixture
def sd3_folders(sd3_files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the host's folders for diffusion models and CLEAR files."""
    import folder_paths

    ours = {
        name: ([str(sd3_files / name)], {".safetensors"}) for name in ("diffusion_models", "clear")
    }
    known = {**folder_paths.folder_names_and_paths, **ours}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return sd3_files


@pytest.fixture
def sd3_model(sd3_folders: Path) -> Model:
    """Load a fresh MODEL as the Load Diffusion Model node does: ``sd3_model("3.5-medium")``.

    Another dtype than that of the file is one of the node's own options in the host's code.
    """
    import comfy.sd

    from nodes import UNETLoader

    def load(name: str, dtype: torch.dtype = torch.float32) -> Any:
        file = f"{name}.safetensors"
        if dtype == torch.float32:
            return UNETLoader().load_unet(file, "default")[0]
        path = sd3_folders / "diffusion_models" / file
        return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": dtype})

    return load


@pytest.fixture
def sd3_clear(sd3_folders: Path) -> Callable[..., SimpleNamespace]:
    """Write a CLEAR file for a model: the base's weights, disturbed, and random pooling weights.

    Returns its name, and its tensors by their names in it.
    """

    def write(name: str, pool_factor: int = 0, image: bool = True) -> SimpleNamespace:
        size = size_of(name, pool_factor, image)
        base = load_file(sd3_folders / "diffusion_models" / f"{name}.safetensors")
        generator = torch.Generator().manual_seed(2)
        shape = (pool_factor, pool_factor)
        tensors = SD3.from_host(base, size)
        if pool_factor:
            blocks = [(kind, i) for kind, count in size.blocks.items() for i in range(count)]
            mean = {block: torch.full(shape, pool_factor**-2) for block in blocks}
            tensors |= SD3.pooling_tensors(mean)
        tensors = {
            key: (tensor + 0.05 * torch.randn(tensor.shape, generator=generator)).bfloat16()
            for key, tensor in tensors.items()
        }
        file = f"{name}_{pool_factor}_{image}.safetensors"
        save(sd3_folders / "clear" / file, tensors, radius=CLEAR_RADIUS, base=name)
        return SimpleNamespace(name=file, tensors=tensors)

    return write
