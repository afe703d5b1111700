"""What the compiled Triton kernels are made of: a table per class of GPU, without a GPU.

    python3 tests/backends/compile_kernels.py sm_80 > after.json
    python3 benchmarks/gpu/kernel_counts.py --before before.json --after after.json

Reads what `compile_kernels.py` printed, of two states of the code, and writes
`results/kernel_counts.md`. Instructions per score: those of one thread, in machine code without
NOPs, in one passage of a loop, over the scores that it computes. Groups ahead: groups of copies,
of the next blocks' rows, that may still be under way while a block is computed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "results" / "kernel_counts.md"
LANES = 32
NAMES = {"forward": "forward", "backward_queries": "dq", "backward_keys": "dk, dv"}
HEAD = (
    "| Class | Kernel | D | Tile, block, warps | Stages | Instructions per score: list, shared | "
    "Groups ahead | Shared memory | Registers |"
)

Key = tuple[str, str, int]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, nargs="+", required=True)
    parser.add_argument("--after", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    before, after = _first_rows(arguments.before), _first_rows(arguments.after)
    lines = [f"| {' | '.join(cells)} |" for cells in _table(before, after)]
    rule = "|---" * HEAD.count(" | ") + "|---|"
    title = "# Counts of the compiled kernels, before -> after\n"
    words = (__doc__ or "").split("Reads what")[1].split("`results/kernel_counts.md`. ")[1]
    text = "\n".join([title, words, HEAD, rule, *lines, ""])
    TARGET.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _first_rows(files: Iterable[Path]) -> dict[Key, dict[str, Any]]:
    """Return each kernel in its first configuration, with a window, in full precision."""
    found: dict[Key, dict[str, Any]] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            if one["window"] and not one["rounded"] and one["case"] == "small":
                found.setdefault((one["gpu"], one["kernel"], one["head_dim"]), one)
    return found


def _table(
    before: dict[Key, dict[str, Any]], after: dict[Key, dict[str, Any]]
) -> Iterator[list[str]]:
    for key, new in after.items():
        if key in before and new["loops"]:
            gpu, kernel, head_dim = key
            both = zip(_facts(before[key]), _facts(new), strict=True)
            changes = (old if old == now else f"{old} -> {now}" for old, now in both)
            yield [gpu, NAMES[kernel], str(head_dim), *changes]


def _facts(one: dict[str, Any]) -> list[str]:
    (rows, columns, block), warps, stages = one["config"][:3]
    shared, listed = (one["loops"] * 2)[:2]  # before, one loop did both
    scores = rows * columns * block / (LANES * warps)
    per_score = (f"{loop['instructions'] / scores:.1f}" for loop in (listed, shared))
    return [
        f"{rows} x {columns}, {block}, {warps}",
        str(stages),
        ", ".join(per_score),
        str(listed["pending"]),
        f"{one['shared_bytes']:,}",
        str(one["registers"]),
    ]


if __name__ == "__main__":
    main()
