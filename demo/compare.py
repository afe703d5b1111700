"""Make the sheet of CLEAR Compare's help page on the demo's model: ``python3 demo/compare.py``.

Two seeds of a prompt that training has not seen, by the teacher, by a student, and by the teacher
behind the student's window.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo.bench import SEED, STEPS, encoded
from demo.enter import enter
from demo.students import GUIDANCE, STUDENT, STUDENTS, TEACHING, TRAINED_PX
from tools.environment import reexec_in_venv
from tools.host import ROOT

HELD_OUT = -2  # a prompt among the last eight
PICTURES = 2
LARGEST_PX = 1200
SHEET = ROOT / "web" / "docs" / "CLEARCompare" / "sheet.jpg"


def main() -> None:
    """Paint, print the table, write the sheet."""
    host = reexec_in_venv()
    enter(host)
    import comfy.sd
    import torch
    from PIL import Image

    from clear_attention.atomic_files import written_whole
    from clear_attention.comfyui.compare.node import compare
    from clear_attention.comfyui.weights.loader import load_onto
    from clear_attention.config.prompts import read_prompts
    from demo.codec.vae_file import vae_weights
    from demo.nodes.network import load_model

    model, (radius, _) = load_model(), STUDENTS[STUDENT]
    line = read_prompts(TEACHING / "prompts.txt")[HELD_OUT]
    (prompt,) = encoded([line], GUIDANCE)
    with torch.inference_mode():
        sheet, table = compare(
            model,
            load_onto(model, STUDENT),
            prompt,
            prompt,
            {"samples": torch.zeros(1, 16, TRAINED_PX // 8, TRAINED_PX // 8)},
            seed=SEED,
            pictures=PICTURES,
            vae=comfy.sd.VAE(vae_weights()),
            sweep=str(radius),
            steps=STEPS,
            cfg=1.0,
            sampler="euler",
            scheduler="simple",
        )
    print(f"{line}\n{table}")
    image = Image.fromarray((sheet[0] * 255).round().byte().numpy())
    image.thumbnail((LARGEST_PX, LARGEST_PX))
    SHEET.parent.mkdir(exist_ok=True)
    with written_whole(SHEET) as part:
        image.save(part, "JPEG", quality=85)


if __name__ == "__main__":
    main()
