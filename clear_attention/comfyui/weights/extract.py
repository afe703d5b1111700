"""What distilling changed, as a LoRA in models/loras/clear: extracted, written, reported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ...units import MIB
from ...weights import low_rank
from ...weights.errors import CheckpointError
from ...weights.extract import Extracted, extract
from ..families import require_family
from .base import check_fits, plain_weights
from .folder import FOLDER, SUFFIX, register_model_folder
from .loaded import ClearWeights, load_clear

MEMORY = 16  # float32 matrices of width x width that one decomposition needs


@dataclass(frozen=True)
class Written:
    """The file that an extraction wrote.

    Attributes:
        name: The file as Load CLEAR Attention lists it.
        report: What is in it and what is lost, for people.
    """

    name: str
    report: str


def extract_lora(
    model: ModelPatcher, clear_name: str, rank: int, name: str = "", radius: int | None = None
) -> Written:
    """Write W_clear - W as a LoRA that any LoRA loader takes, with the window in its metadata.

    The file is there as a whole or not at all; one of the same name is replaced.

    Args:
        model: The MODEL that the weights were distilled from; LoRAs on it take no part.
        clear_name: A file of whole weights in the folders of CLEAR files.
        rank: Rank of the change of each projection.
        name: Of the file to write; empty for that of the CLEAR file and the rank.
        radius: Of the window in tokens, None for what the file was distilled for.

    Raises:
        CheckpointError: The file or the model cannot be used, or the name is none.
        OSError: The file cannot be written.
        InterruptProcessingException: The user stopped it; nothing is written.
    """
    require_family(model)
    clear = load_clear(clear_name, radius)
    found = clear.checkpoint
    target = loras_folder() / file_name(name, clear_name, rank)
    if found.rank:
        raise CheckpointError(
            f"{clear_name} must hold whole weights to extract from, got changes of rank "
            f"{found.rank}: any LoRA loader takes it as it is."
        )
    check_fits(model, found)
    _check_free(target, found.path)
    target.parent.mkdir(parents=True, exist_ok=True)  # first: what fails here need not wait
    extracted = _extract(model, clear, rank)
    low_rank.save(
        target,
        extracted.tensors,
        radius=found.radius,
        radii=found.radii,
        base=found.base,
        family=found.family,
    )
    text = report(extracted, target, os.path.getsize(target), os.path.getsize(found.path))
    return Written(target.name, text)


def _extract(model: ModelPatcher, clear: ClearWeights, rank: int) -> Extracted:
    found = clear.checkpoint
    device = comfy.model_management.get_torch_device()
    if device.type != "cuda":
        device = torch.device("cpu")  # the decompositions are not everywhere: MPS has no QR
    comfy.model_management.free_memory(MEMORY * 4 * found.size.hidden**2, device)
    bar = comfy.utils.ProgressBar(1)

    def progress(done: int, of: int) -> None:
        bar.update_absolute(done, of)
        comfy.model_management.throw_exception_if_processing_interrupted()

    dtype = next(iter(clear.tensors.by_name.values())).dtype
    return extract(
        found.table,
        found.rows,
        plain_weights(model, found.rows.values(), "The model to extract from"),
        clear.tensors.by_name,
        rank=rank,
        dtype=dtype if dtype.itemsize > 1 else torch.bfloat16,
        device=device,
        progress=progress,
    )


def loras_folder() -> Path:
    """Return the folder for extracted LoRAs: LoRA loaders list it, and so do ours."""
    register_model_folder()
    return Path(folder_paths.get_folder_paths("loras")[0]) / FOLDER


def file_name(name: str, clear_name: str, rank: int) -> str:
    """Return the name of the file to write.

    Raises:
        CheckpointError: The name would lead out of the folder.
    """
    if not name.strip():
        return f"{Path(clear_name).stem}_rank_{rank}{SUFFIX}"
    name = name.strip()
    if name.lower().endswith(SUFFIX):
        name = name[: -len(SUFFIX)]
    edges = name.startswith(".") or name.endswith(".")
    if not name.isprintable() or not name or edges or set(name) & set('/\\:*?"<>|'):
        raise CheckpointError(
            f"The name must be a file name without folders, such as my_clear_lora, got {name!r}."
        )
    return name + SUFFIX


def _check_free(target: Path, source: Path) -> None:
    """Refuse a name by which the file itself would go, or another one be found in its place."""
    if target.exists() and target.samefile(source):
        raise CheckpointError(
            f"The name must be another one than that of the CLEAR file itself, got {target.name}."
        )
    listed = folder_paths.get_full_path(FOLDER, target.name)
    if listed is not None and not (target.exists() and target.samefile(listed)):
        raise CheckpointError(
            f"The name must be free, got {target.name}, which is a CLEAR file already: {listed}. "
            "Choose another name."
        )


def report(extracted: Extracted, target: Path, size: int, whole_size: int) -> str:
    """Write what was extracted: rank, size, and the relative error of the weights."""
    kinds = "\n".join(f"  {kind}: {100 * error:.1f} %" for kind, error in extracted.by_kind.items())
    return (
        f"{target.name} in {target.parent}\n"
        f"rank {extracted.rank}, {size / MIB:.1f} MiB (whole weights: {whole_size / MIB:.1f} MiB)\n"
        f"lost of what distilling changed: {100 * extracted.error:.1f} %\n"
        f"{kinds}\n"
        "  biases and pooling weights: whole"
    )
