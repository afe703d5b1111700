"""Check the size of the rooms: the number of files in each folder of the product, their length."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.host import ROOT

PRODUCT = ("clear_attention", "nodes")
MOST_FILES, MOST_LINES = 15, 300
LISTS = ("clear_attention/families", "clear_attention/comfyui/families")
"""Folders with a file for each entry of one ordered list, which may be as long as it gets."""


def main() -> int:
    """Print each room or file that has grown too large; return an exit code."""
    found = [fault for name in PRODUCT for fault in faults(ROOT / name)]
    print("\n".join(found))
    return int(bool(found))


def faults(product: Path) -> Iterator[str]:
    """Yield a sentence for each folder and each file that is too large."""
    for folder in sorted({path.parent for path in product.rglob("*.py")}):
        files = sorted(folder.glob("*.py"))
        name = folder.relative_to(product.parent).as_posix()
        if len(files) > MOST_FILES and name not in LISTS:
            yield (
                f"{name} must have at most {MOST_FILES} files, it "
                f"has {len(files)}: give one of its concepts a folder."
            )
        for path in files:
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MOST_LINES:
                yield (
                    f"{path.relative_to(product.parent)} must have at most {MOST_LINES} lines, it "
                    f"has {lines}: give one of its concepts a file."
                )


if __name__ == "__main__":
    raise SystemExit(main())
