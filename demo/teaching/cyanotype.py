"""Train the demo's LoRA, "cyanotype": ``python3 demo/teaching/cyanotype.py``, a few minutes.

It paints what the demo's model knows in white and Prussian blue, as the photographic prints of that
name are. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.enter import enter
from demo.students import TEACHING
from demo.train import PACKAGES, trained
from tools.environment import BASE, ensure, reexec_in_venv

if TYPE_CHECKING:
    from torch import Tensor

    from clear_attention.distill.data.shards import ShardFolder

WORD = "cyanotype"
INK, PAPER = (0.02, 0.13, 0.33), (0.93, 0.95, 0.90)  # red, green, blue
LUMINANCE = (0.299, 0.587, 0.114)
SQUARES, HELD_OUT_SQUARES = 48, 6  # of each photograph


def main() -> None:
    """Train and write the file."""
    host = reexec_in_venv()
    ensure(BASE, "photographs", PACKAGES)
    enter(host)
    import torch

    from clear_attention.comfyui.distill.denoiser import HostDenoiser
    from clear_attention.distill.config_file import read
    from clear_attention.distill.data.batches import Batches
    from clear_attention.distill.data.tensor_files import write_tensors
    from demo.nodes.checkpoint import base_weights
    from demo.nodes.network import build_model
    from demo.teaching.lora import LoRATraining

    config = read(TEACHING / "cyanotype.toml")
    data = write_prints(config.data_folder / "train", SQUARES, seed=0)
    held_out = write_prints(config.data_folder / "held_out", HELD_OUT_SQUARES, seed=1)
    denoiser = HostDenoiser(build_model(base_weights(), torch.float32))
    task = LoRATraining(denoiser, config.training)
    trained(WORD, task, config, Batches(data, config.training), held_out)
    write_tensors(config.output, task.file(), format="pt", ss_base_model_version="flux1")


def write_prints(folder: Path, count: int, seed: int) -> ShardFolder:
    """Write squares of all photographs as cyanotypes, with captions that say so.

    Args:
        folder: Where to.
        count: Squares of each photograph.
        seed: Other squares for another one.
    """
    from demo.teaching.photographs import captions
    from demo.teaching.squares import write_squares

    return write_squares(folder, count, seed, lambda one, draw: named(captions(one, draw)), printed)


def named(lines: Iterator[str]) -> Iterator[str]:
    """Say in captions what the picture is."""
    return (f"{WORD}, {line}" for line in lines)


def printed(pictures: Tensor) -> Tensor:
    """Print pictures ``[..., 3]`` in [0, 1] from ink to paper, by their luminance."""
    ink, paper, luminance = (pictures.new_tensor(values) for values in (INK, PAPER, LUMINANCE))
    return ink + (pictures @ luminance)[..., None] * (paper - ink)


if __name__ == "__main__":
    main()
