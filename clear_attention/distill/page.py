"""A page about a run beside its files: where it stands, losses, pictures. It needs no server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ..atomic_files import write_text_whole
from .config import RunConfig
from .log import Row, read
from .updates.best import Best

NAME = "index.html"
PICTURES = "step-*.png"
SHOWN = 12
"""Pictures of validations on the page, the last ones."""

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="30">
<title>$title</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #1b1f23; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
progress { width: 100%; height: 1rem } img { max-width: 100% } figure { margin: 0 0 1.5rem }
table { border-collapse: collapse } td { padding: .15rem 1rem .15rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181b }
  img { background: #fff } }
</style></head><body>
<h1>$title</h1>
<p>Update $step of $steps. $best</p><progress value="$step" max="$steps"></progress>
$losses
$pictures
<h2>Settings</h2><table>$settings</table>
<p>This page renews itself every half minute while it is open. The numbers are in <a
href="log.csv">log.csv</a>.</p>
</body></html>
""")


def write(config: RunConfig, step: int, best: Best) -> None:
    """Write the page into a run's folder, as a whole.

    Args:
        config: The run.
        step: Updates done.
        best: Its best validation so far.
    """
    folder = config.folder
    text = PAGE.substitute(
        title=escape(f"Distilling {config.base or config.output.stem}"),
        step=step,
        steps=config.training.steps,
        best=escape(_best(best, read(folder))),
        losses="\n".join(_figures(folder, ["losses.png"], "Losses")),
        pictures="\n".join(
            _figures(folder, _last_pictures(folder), "Teacher above student, the same seeds")
        ),
        settings="".join(_rows(dataclasses.asdict(config))),
    )
    write_text_whole(folder / NAME, text)


def _best(best: Best, rows: Iterable[Row]) -> str:
    if not best.step:
        return "Nothing was validated yet."
    first = next(v for _, kind, name, v in rows if (kind, name) == ("held_out", best.name))
    return (
        f"The smallest held-out {best.name} error was {best.error:.3g} at update {best.step}, "
        f"{first / best.error:.2f} times less than at the first validation."
    )


def _last_pictures(folder: Path) -> list[str]:
    return sorted((path.name for path in folder.glob(PICTURES)), reverse=True)[:SHOWN]


def _figures(folder: Path, names: Iterable[str], title: str) -> Iterator[str]:
    there = [name for name in names if (folder / name).is_file()]
    if there:
        yield f"<h2>{escape(title)}</h2>"
    for name in there:
        # The time keeps browsers from showing what they had.
        time = (folder / name).stat().st_mtime_ns
        caption = escape(Path(name).stem.replace("-", " "))
        yield (
            f'<figure><img src="{escape(name)}?{time}" alt="{caption}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def _rows(tree: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{before}{name}.")
        elif value not in (None, ""):
            yield f"<tr><td>{escape(before + name)}</td><td>{escape(str(value))}</td></tr>"
