"""What a user does on ComfyUI's page, in words."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import ConsoleMessage, Error, Locator, Page
from playwright.sync_api import TimeoutError as NotYet

from tools.patience import Patience, slowdown_by_load

OURS = "/extensions/clear-attention/"
POLL_MS = 50  # by default a script is tried in each frame, which the page then has to draw

# The page opens with its default workflow; what is put onto it before that has come is lost.
READY = """!!(window.app?.vueAppReady && app.graph?.nodes.length
    && LiteGraph.registered_node_types.CLEARLoader)"""
# On the canvas, or in Nodes 2.0's own elements.
PICTURES_SHOWN = """app.graph.nodes.filter(node => node.type === 'SaveImage')
    .map(node => [node.imgs ?? [], document.querySelectorAll(`[data-node-id="${node.id}"] img`)])
    .every(shown => shown.some(imgs => imgs.length && [...imgs].every(img => img.naturalWidth)))"""
NODES_RENDERED = """app.graph.nodes.length > 0 && app.graph.nodes.every(
    node => document.querySelector(`[data-node-id="${node.id}"]`)?.clientHeight)"""
INFO_BUTTON = "[data-testid=info-button], button:has(.icon-\\[lucide--info\\])"
HELP = ".node-help-content, .markdown-content, .prose"
ADD_NODE = """kind => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    node.pos = [700, 500];
    app.graph.add(node);
    app.canvas.ds.reset();
    app.canvas.setDirty(true, true);
}"""
# Title and box of each node in units of the canvas: as Nodes 2.0 renders them, or as it is drawn.
BOXES = """() => app.graph.nodes.map(node => {
    const box = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    const [x, y] = node.pos, title = LiteGraph.NODE_TITLE_HEIGHT;
    const [width, height] = node.flags.collapsed ? [node.width, 0] : node.size;
    if (!box) return [node.type, x, y - title, width, height + title];
    const scale = app.canvas.ds.scale;
    const corner = app.canvas.canvas.getBoundingClientRect();
    const at = app.canvas.ds.convertCanvasToOffset([box.x - corner.x, box.y - corner.y]);
    return [node.type, ...at, box.width / scale, box.height / scale];
})"""
MISSING_TYPES = """app.graph.nodes.map(node => node.type)
    .filter(type => !LiteGraph.registered_node_types[type])"""
SLACK_PX = 2  # boxes are rounded to pixels of the screen

SETTINGS: dict[str, Any] = {
    "Comfy.TutorialCompleted": True,  # else templates cover the page
    # While a workflow runs, the page draws all of it in each frame, which takes a core.
    "LiteGraph.Canvas.MaximumFps": 5,
}
"""Of the server, for a page that a script uses."""


class ComfyPage:
    """ComfyUI's page.

    Attributes:
        page: The browser's page.
        errors: Errors that this pack's files caused.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self._listeners = {"console": self._note, "pageerror": self._note_exception}

    def __enter__(self) -> ComfyPage:
        for event, listener in self._listeners.items():
            self.page.on(event, listener)  # pyright: ignore[reportArgumentType, reportCallIssue]
        self.page.set_default_timeout(30_000 * slowdown_by_load())
        return self

    def __exit__(self, *_: object) -> None:
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    def load(self, url: str) -> None:
        """Load the page, and wait until it can be used."""
        self.page.goto(url)
        self.wait_for_script(READY, "ComfyUI's page with its first workflow and our nodes", 60)

    def is_loaded(self) -> bool:
        """Tell whether the page is there, with nodes on it and no dialog open."""
        return self.page.evaluate(READY) and not self.dialog()

    def open_workflow(self, workflow: dict[str, Any], name: str) -> None:
        """Open a workflow as if its file were dropped onto the page."""
        script = "([workflow, name]) => app.loadGraphData(workflow, true, true, name)"
        self.page.evaluate(script, [workflow, name])

    def saved(self) -> dict[str, Any]:
        """Return the workflow as the page would save it."""
        return self._json("(await app.graphToPrompt()).workflow")

    def prompt(self) -> dict[str, dict[str, Any]]:
        """Return what the page would send to the server."""
        return self._json("(await app.graphToPrompt()).output")

    def missing_types(self) -> list[str]:
        """List the types of nodes on the page that are not installed."""
        return self.page.evaluate(MISSING_TYPES)

    def dialog(self) -> str:
        """Return the text of the dialog that is open, or an empty text."""
        dialogs = self.page.locator("[role=dialog]:visible")
        return dialogs.first.inner_text() if dialogs.count() else ""

    def close_dialog(self) -> None:
        """Close the dialog that is open, if there is one."""
        if self.dialog():
            self.page.keyboard.press("Escape")

    def missing_models(self) -> str:
        """Return the message about missing models: a dialog's, or from 0.19 on a short notice."""
        dialog = self.page.locator("[role=dialog]:visible", has_text="Missing Models")
        notice = self.page.get_by_text(re.compile(r"^\d+ errors( found)?$", re.IGNORECASE))
        message = dialog.or_(notice).first
        self.wait_for_element(message, "the message about missing models", 20)
        return message.inner_text()

    def run(self) -> None:
        """Queue the workflow, and wait until its pictures are there."""
        self.page.evaluate("app.queuePrompt(0, 1)")
        self.wait_for_script(PICTURES_SHOWN, "the pictures of the workflow", 120)

    def picture_sizes(self) -> list[tuple[int, int]]:
        """Return width and height of the saved pictures that the page shows."""
        images = "app.graph.nodes.filter(n => n.type === 'SaveImage').flatMap(n => n.imgs)"
        sizes = f"{images}.map(img => [img.naturalWidth, img.naturalHeight])"
        return [(width, height) for width, height in self.page.evaluate(sizes)]

    def node_text(self, kind: str) -> str:
        """Return what is written in the widgets of a type's nodes, such as the progress text."""
        widgets = "app.graph.nodes.filter(n => n.type === kind).flatMap(n => n.widgets ?? [])"
        script = f"kind => {widgets}.map(widget => String(widget.value)).join()"
        return self.page.evaluate(script, kind)

    def help_of(self, kind: str, heading: str) -> str:
        """Put a node onto the page, press its info button, and return the help that opens.

        Args:
            kind: The node's type.
            heading: The first line of its help, which is waited for: the text is fetched after the
                panel has opened.
        """
        self.page.evaluate(ADD_NODE, kind)
        button = self.page.locator(INFO_BUTTON).first
        for _ in range(20):  # while the page settles, it drops selections
            self.page.evaluate(
                "app.canvas.deselectAll(); app.canvas.selectNode(app.graph.nodes[0])"
            )
            with contextlib.suppress(NotYet):
                button.wait_for(state="attached", timeout=500)
                break
        button.dispatch_event("click")  # 0.3.64 draws the button below its menu
        help_text = self.page.locator(HELP, has_text=heading).first
        self.wait_for_element(help_text, f"the help of {kind}, {heading!r}", 20)
        return help_text.inner_text()

    def overlaps(self) -> list[tuple[str, str]]:
        """List the pairs of nodes that lie over one another, as they are shown now."""
        boxes = [
            (kind, x, y, x + width, y + height)
            for kind, x, y, width, height in self.page.evaluate(BOXES)
        ]
        return [
            (kind, other)
            for (kind, x, y, right, bottom), (other, left, top, far, low) in itertools.combinations(
                boxes, 2
            )
            if min(right, far) - max(x, left) > SLACK_PX
            and min(bottom, low) - max(y, top) > SLACK_PX
        ]

    def settle(self) -> None:
        """Wait until nodes stay where they are, as they do not while Nodes 2.0 lays them out."""
        patience, before = Patience("nodes that stay where they are", 20), None
        while not patience.over:
            boxes = self.page.evaluate(BOXES)
            if boxes == before:
                return
            before = boxes
            self.page.wait_for_timeout(500)
        raise TimeoutError(str(patience))

    def fit_view(self) -> None:
        """Show the whole graph."""
        self.page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(500)  # it glides there, in 350

    def wait_for_script(self, script: str, what: str, seconds: float) -> None:
        """Wait until a script is true.

        Raises:
            TimeoutError: It never was; the message says what was waited for, and for how long.
        """
        self._wait(
            lambda left: self.page.wait_for_function(script, timeout=left, polling=POLL_MS),
            what,
            seconds,
        )

    def wait_for_element(self, element: Locator, what: str, seconds: float) -> None:
        """Wait until an element is visible, or raise as `wait_for_script` does."""
        self._wait(lambda left: element.wait_for(timeout=left), what, seconds)

    def _wait(self, attempt: Callable[[float], object], what: str, seconds: float) -> None:
        patience = Patience(what, seconds)
        while not patience.over:  # in pieces: the load may grow, and the limit with it
            try:
                attempt(min(5_000, max(1, 1_000 * patience.left)))
            except NotYet:
                continue
            return
        raise TimeoutError(f"{patience} The open dialog says {self.dialog()!r}.")

    def _json(self, expression: str) -> Any:
        return json.loads(self.page.evaluate(f"async () => JSON.stringify({expression})"))

    def _note_exception(self, error: Error) -> None:
        self._keep(f"{error}\n{error.stack}")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._keep(f"{message.text}\n{message.location.get('url')}")

    def _keep(self, error: str) -> None:
        if OURS in error:
            self.errors.append(error)
