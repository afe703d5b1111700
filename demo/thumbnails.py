"""Make the example workflows' thumbnails by running them on the demo's models in a real ComfyUI.

Those of models that the demo has nothing for are drawn.

``python3 demo/thumbnails.py`` writes a picture beside every workflow, or beside those that it is
given the names of.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.environment import reexec_in_venv
from tools.host import HOSTS

# The demo's teacher paints 384 pixels where FLUX paints 1024.
SHRINK = Fraction(1024, 384)
EDGE_PX = 512


def main(names: list[str]) -> None:
    """Run workflows, every one if none is named, and write their thumbnails."""
    host = reexec_in_venv()
    from demo.install import write_models
    from demo.scheme import draw_scheme
    from tools import workflows
    from tools.server import Server

    base = HOSTS / "demo"
    write_models(base)
    with Server(host, base, options=("--use-pytorch-cross-attention",)) as server:
        info = server.object_info()
        for path in workflows.example_workflows():
            if names and path.stem not in names:
                continue
            if path.stem not in workflows.painted_by_the_demo():
                title = workflows.title(workflows.load(path))
                draw_scheme(title, path.with_suffix(".jpg"), EDGE_PX)
                continue
            workflow = workflows.with_demo_models(workflows.load(path), shrink=SHRINK)
            entry = server.run(workflows.to_prompt(workflow, info))
            write_thumbnail(server.images(entry)[-1], path.with_suffix(".jpg"))
            print(f"{path.stem}: done", flush=True)


def write_thumbnail(picture: Path, target: Path) -> None:
    """Write a picture small, as a whole or not at all."""
    from PIL import Image, ImageOps

    from clear_attention.atomic_files import written_whole

    with Image.open(picture) as image:
        # A sheet is no square: white is put around it.
        size, filtering = (EDGE_PX, EDGE_PX), Image.Resampling.LANCZOS
        small = ImageOps.pad(image.convert("RGB"), size, filtering, "white")
    with written_whole(target) as part:
        small.save(part, "JPEG", quality=88)


if __name__ == "__main__":
    main(sys.argv[1:])
