"""Make the example workflows' thumbnails: painted by the demo's models where they can, else drawn.

``python3 demo/pictures/thumbnails.py`` writes a picture beside every workflow, or beside those
whose numbers it is given, such as ``01 02``. Painting runs the workflow in a real ComfyUI at up to
2048 pixels, and takes minutes; nothing else should run then, since seconds are shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.environment import reexec_in_venv


def main(numbers: list[str]) -> None:
    """Write thumbnails, every one if no number is given."""
    host = reexec_in_venv()
    from clear_attention.atomic_files import written_whole
    from demo.pictures.easel import PAINTINGS, easel
    from demo.pictures.scheme import SCHEMES, drawing
    from tools import workflows

    for path in workflows.example_workflows():
        number = path.stem[:2]
        if numbers and number not in numbers:
            continue
        if number in PAINTINGS:
            with easel(host) as brush:
                shown = PAINTINGS[number](brush, path)
        else:
            shown = drawing(SCHEMES[number])
        with written_whole(path.with_suffix(".jpg")) as part:
            shown.image().convert("RGB").save(part, "JPEG", quality=90, subsampling=0)
        print(f"{path.stem}: done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
