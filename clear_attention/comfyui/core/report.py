"""What happened in a run: for the log, the nodes and the metadata of the saved picture."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...layout import TokenLayout
from . import host
from .benefit import Benefit
from .saved_reports import SAVED_REPORTS

logger = logging.getLogger(__name__)

NOTHING_SEEN = (
    "no attention call reached CLEAR: the model did not run, or another node replaced its attention"
)

WINDOW = "window:"
"""What stands for the lines of the model's attention as a node's own ones."""

MOST_LINES = 3
"""Own lines that a node shows; the log and the saved picture have all."""

LINE_BREAK = "  \n"
"""Between lines on a node: one canvas takes the text for Markdown, the other for plain text."""

REPLACED = "the window of this node had no effect: a CLEAR node behind it has replaced it"


@dataclass(frozen=True)
class ComputedPath:
    """One way in which attention calls of a run were computed.

    Attributes:
        backend: Name of the backend, or "dense".
        layout: Where the tokens lay, or None when the sequence did not fit.
        radius: Of the window in tokens, None when dense.
        pool_factor: Edge of a pooled cell in tokens, 0 without pooling.
        computed: Pairs of one call and head.
        possible: Pairs of full attention.
        why: Why it stayed dense or took another backend than asked; empty if neither.
        wrapped: Whether the window wraps around.
        whose: Whose attention it was, empty for the model's.
        whole: Whether whole calls of the model are counted, in place of single attention calls.
        behind: What lies behind the grid, by name and number; references where nothing is said.
    """

    backend: str
    layout: TokenLayout | None = None
    radius: int | None = None
    pool_factor: int = 0
    computed: int = 0
    possible: int = 0
    why: str = ""
    wrapped: bool = False
    whose: str = ""
    whole: bool = False
    behind: tuple[tuple[str, int], ...] = ()

    def brief(self, radii: str = "") -> str:
        """Return what was computed and how, without numbers of pairs and calls.

        Args:
            radii: Of several paths that differ by their radius alone; empty for this one's.
        """
        line = ", ".join(self._parts(radii))
        return line + (f": {self.why}" if self.why else "")

    def describe(self, calls: int) -> str:
        """Return one line for people."""
        parts = self._parts()
        if self.possible:
            share = 100 * self.computed / self.possible
            parts.append(f"{share:.1f} % of the pairs ({self.computed:,} of {self.possible:,})")
        parts.append(_calls(calls, "model" if self.whole else "attention"))
        whose = f"{self.whose}: " if self.whose else ""
        return whose + ", ".join(parts) + (f": {self.why}" if self.why else "")

    def _parts(self, radii: str = "") -> list[str]:
        radius = radii or str(self.radius)
        parts = [self.backend if self.radius is None else f"{self.backend}, radius {radius}"]
        if self.wrapped:
            parts.append("wrapped around")
        if self.pool_factor:
            parts.append(f"pooled by {self.pool_factor}")
        if self.layout is not None:
            parts.append(_tokens(self.layout, self.behind))
        return parts


class RunReport:
    """Collects the paths of one sampling run, whose parts may run in several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.calls: Counter[ComputedPath] = Counter()
        self.missed: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self.warned: dict[str, None] = {}
        self.shown_on: dict[str, str] = {}
        self._began = 0.0
        self._model_calls = self._pictures = 0
        self.seconds: float | None = None
        self.shared = False

    def __deepcopy__(self, _: dict[int, object]) -> RunReport:
        """Return the report itself: copies of a run's options count together."""
        return self

    @property
    def model_calls(self) -> int:
        """Number of calls of the model."""
        return self._model_calls

    @property
    def pictures_per_call(self) -> float:
        """Mean number of pictures in a call of the model."""
        return self._pictures / self._model_calls if self._model_calls else 1.0

    def begin_call(self, pictures: int, *, shared: bool = False) -> None:
        """Count a call of the model; the first one starts the clock.

        Args:
            pictures: In the call.
            shared: Whether it computes a part of the picture's rows, beside other devices.
        """
        with self._lock:
            self.shared = self.shared or shared
            self._began = self._began if self._model_calls else time.perf_counter()
            self._model_calls += 1
            self._pictures += pictures

    def stop_clock(self) -> None:
        """Keep the time since the first call of the model, if there was one."""
        if self._model_calls:
            self.seconds = time.perf_counter() - self._began

    def add(self, path: ComputedPath) -> None:
        """Count one attention call."""
        with self._lock:
            self.calls[path] += 1

    def miss(self, what: str) -> None:
        """Count a call of the model in which some blocks attended without us."""
        with self._lock:
            self.missed[what] += 1

    def include(self, other: RunReport, whose: str) -> None:
        """Count the attention calls of another network than the model."""
        with self._lock:
            for path, calls in other.calls.items():
                self.calls[dataclasses.replace(path, whose=whose)] += calls
            for what, calls in other.missed.items():
                self.missed[f"{whose}: {what}"] += calls

    def show_on(self, node_id: str, about: str) -> None:
        """Show the report on one more node, which is not on the model's path.

        Args:
            node_id: Its id.
            about: As in `Settings.about`.
        """
        with self._lock:
            self.shown_on[node_id] = about

    def note(self, text: str) -> None:
        """Keep a line about something other than attention; repeated lines are kept once."""
        with self._lock:
            self.notes[text] = None

    def warn(self, text: str) -> None:
        """Keep a line and log it at once: an interrupted run publishes no report."""
        with self._lock:
            known = text in self.warned
            self.warned[text] = None
        if not known:
            logger.warning("CLEAR: %s", text)

    def clear(self) -> None:
        """Forget everything, for the next run."""
        with self._lock:
            for kept in (self.calls, self.missed, self.notes, self.warned, self.shown_on):
                kept.clear()

    def lines(self) -> list[str]:
        """Return one line per distinct path, in the order of appearance, then what was missed."""
        with self._lock:
            paths, missed = list(self.calls.items()), list(self.missed.items())
        return [
            *(path.describe(calls) for path, calls in paths),
            *(f"{what}, {_calls(calls, 'model')}" for what, calls in missed),
        ]

    def publish(
        self,
        node_ids: tuple[str, ...],
        attention: bool = True,
        replaced: tuple[str, ...] = (),
        about: Mapping[str, str] | None = None,
        in_full: float | None = None,
    ) -> None:
        """Write the report to the log, onto the nodes and into the running prompt's metadata.

        Args:
            node_ids: Nodes that show it.
            attention: Whether attention calls of the model were to be seen.
            replaced: Those of the nodes whose window a later one has replaced.
            about: Each node's own line, as in `Settings.about`.
            in_full: Seconds that full attention would have taken, or None.
        """
        unseen = attention and all(path.whose for path in self.calls)
        first = [Benefit.of(self.calls, self.seconds, in_full).headline()] if attention else []
        first = [NOTHING_SEEN] if unseen else first
        lines = [*self.lines(), *self.notes]
        for line in first:
            logger.info("CLEAR: %s" if unseen else "%s", line)
        for line in lines:
            logger.info("CLEAR: %s", line)
        for node_id in replaced:
            logger.warning("CLEAR: node %s: %s", node_id, REPLACED)
        nodes = dict.fromkeys(node_ids, WINDOW) | dict(about or {}) | self.shown_on
        for node_id, own in nodes.items():
            head = [REPLACED, *first] if node_id in replaced else first
            shown = [*head, *self._own_lines(own), *self._faults(), *self.warned]
            tell("\n".join([*head, *lines, *self.warned]), node_id, list(dict.fromkeys(shown)))

    def _own_lines(self, about: str) -> list[str]:
        """Return the lines of which a node is the cause."""
        if about == WINDOW:
            own = _briefs(path for path in self.calls if not path.whose) or list(self.notes)
        elif about.endswith(":"):
            own = [line for line in (*self.lines(), *self.notes) if line.startswith(about)]
        else:
            own = [about]
        rest = len(own) - MOST_LINES
        return own if rest <= 0 else [*own[:MOST_LINES], f"{rest} more in the log"]

    def _faults(self) -> list[str]:
        """Return what did not go as it was asked for: calls that stayed dense, blocks missed."""
        with self._lock:
            dense = [path.brief() for path in self.calls if path.why and not path.whose]
            missed = [f"{what}, {_calls(calls, 'model')}" for what, calls in self.missed.items()]
        return [*dict.fromkeys(dense), *missed]


def tell(text: str, node_id: str, shown: Sequence[str] | None = None) -> None:
    """Put a report onto a node and into the metadata of the picture that is saved.

    Args:
        text: The whole report.
        node_id: Of the node.
        shown: Lines of it for the node, or None for all.
    """
    _show(LINE_BREAK.join(text.splitlines() if shown is None else shown), node_id)
    SAVED_REPORTS.add(text, node_id)


def _briefs(paths: Iterable[ComputedPath]) -> list[str]:
    """Return a line for each path; those that differ by their radius alone share one."""
    alike: dict[ComputedPath, set[int]] = {}
    for path in paths:
        key = dataclasses.replace(path, radius=path.radius and 0, computed=0, possible=0)
        alike.setdefault(key, set()).add(path.radius or 0)
    return [
        path.brief(f"{min(radii)} to {max(radii)}" if len(radii) > 1 else str(max(radii)))
        for path, radii in alike.items()
    ]


def _calls(number: int, of_what: str) -> str:
    return f"{number} {of_what} call{'s' if number != 1 else ''}"


def _tokens(layout: TokenLayout, behind: tuple[tuple[str, int], ...]) -> str:
    behind = behind or (("reference", layout.extra),)
    has_text_behind = any(name == "text" and number for name, number in behind)
    parts = [] if has_text_behind and not layout.text else [f"{layout.text} text"]
    parts.append(f"{layout.height} x {layout.width} image")
    parts += [f"{number} {name}" for name, number in behind if number]
    return " + ".join(parts) + " tokens"


def _show(text: str, node_id: str) -> None:
    server = host.server()
    if server is not None:
        server.send_progress_text(text, node_id)
