"""Tables in Markdown files that a script writes anew, between two marks."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).with_name("README.md")


def replace_between(path: Path, text: str, start: str, end: str) -> None:
    """Replace what stands between two marks of a Markdown file.

    Args:
        path: The file.
        text: New content.
        start: Mark in front of it, such as an HTML comment.
        end: Mark behind it.

    Raises:
        ValueError: The file has no such marks.
    """
    # Imported here: it needs torch, which is there only inside the virtual environment.
    from clear_attention.atomic_files import written_whole

    before, first, rest = path.read_text(encoding="utf-8").partition(start)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"{path} must have the lines {start} and {end}.")
    with written_whole(path) as part:
        part.write_text(f"{before}{start}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")
