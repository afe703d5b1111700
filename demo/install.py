"""Put the demo's models into the folders of a ComfyUI."""

from __future__ import annotations

import shutil
from pathlib import Path

from clear_attention.atomic_files import written_whole
from demo.codec.vae_file import write_vae_file
from demo.nodes.checkpoint import MODELS
from demo.students import LORA, STUDENTS

EXAMPLE = Path(__file__).with_name("example.jpg")  # of the photographs that the model knows


def write_models(base_directory: Path) -> None:
    """Put the demo's CLEAR files, its LoRA, VAE and a picture into a ComfyUI base directory.

    The diffusion model is loaded by the demo's node from where it is: ComfyUI's own loader knows
    narrow FLUX files from 0.12 on only.
    """
    for kind, name in [*(("clear", student) for student in STUDENTS), ("loras", LORA)]:
        folder = base_directory / "models" / kind
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / name) as part:
            shutil.copyfile(MODELS / name, part)
    write_vae_file(base_directory)
    write_picture(base_directory)


def write_picture(base_directory: Path) -> None:
    """Put a picture to enlarge where ComfyUI's own example lies."""
    # Imported here: what makes the demo's models does without.
    from PIL import Image

    folder = base_directory / "input"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Image.open(EXAMPLE) as picture,
        written_whole(folder / "example.png") as part,
    ):
        picture.save(part, "PNG")
