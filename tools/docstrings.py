"""Check that docstrings spell their sections one way: entries begin with an upper-case letter.

No rule of ruff's covers it. ``--fix`` repairs what it finds.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.host import ROOT

FOLDERS = ("clear_attention", "nodes", "demo", "tools", "benchmarks")
SECTION = re.compile(r"^(?P<indent> *)(Args|Attributes|Raises|Returns|Yields):$")
ENTRY = re.compile(r"^(?P<head> *(?:\*{0,2}[A-Za-z_][\w, .*]*): )(?P<first>[a-z])(?P<rest>.*)$")


def main(arguments: list[str]) -> int:
    """Print each entry that begins in lower case, or repair it; return an exit code."""
    found = 0
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        wrong = list(lower_case_entries(path.read_text(encoding="utf-8")))
        found += len(wrong)
        if "--fix" in arguments:
            for number in wrong:
                lines[number] = ENTRY.sub(_upper_case, lines[number])
            path.write_text("".join(lines), encoding="utf-8")
            continue
        for number in wrong:
            print(f"{path.relative_to(ROOT)}:{number + 1}: {lines[number].strip()}")
    return int(bool(found) and "--fix" not in arguments)


def lower_case_entries(source: str) -> Iterator[int]:
    """Yield the line numbers, from 0, of entries of docstring sections in lower case."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = node.body[0] if node.body else None
        if ast.get_docstring(node) is None or first is None or first.end_lineno is None:
            continue
        yield from _entries(lines, first.lineno - 1, first.end_lineno)


def _entries(lines: list[str], start: int, stop: int) -> Iterator[int]:
    """Yield the lower-case entries between two lines: one level deeper than their section."""
    depth: int | None = None
    for number in range(start, stop):
        section = SECTION.match(lines[number])
        if section:
            depth = len(section["indent"]) + 4
        elif depth is not None and lines[number].strip():
            indent = len(lines[number]) - len(lines[number].lstrip())
            if indent < depth:
                depth = None
            elif indent == depth and ENTRY.match(lines[number]):
                yield number


def _upper_case(entry: re.Match[str]) -> str:
    return entry["head"] + entry["first"].upper() + entry["rest"]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
