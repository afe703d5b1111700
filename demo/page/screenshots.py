"""Take the screenshots of ComfyUI's page with this pack: ``python3 demo/page/screenshots.py``.

The demo's models paint in a real ComfyUI, and its page is opened in a headless Chromium. Those that
a page of docs shows are written to docs/screenshots, the others to output/screenshots, to look at.
Names as arguments take these alone, such as ``gallery run-01``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.page.shot_files import WIDTH_PX, target, texts, write
from tools.environment import reexec_in_venv
from tools.host import HOSTS, ROOT

if TYPE_CHECKING:
    from tools.comfy_page import ComfyPage
    from tools.server import Server

LARGEST_PX = 768  # of a picture, so that a CPU paints it in seconds
PLAIN: dict[str, Any] = {
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Locale": "en",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Templates.SortBy": "alphabetical",  # else in the order of the disk
}
NO_BANNER = "localStorage.setItem('vueNodesBannerDismissed', 'true')"  # it offers Nodes 2.0
SEARCH = "app.extensionManager.command.execute('Workspace.SearchBox.Toggle')"
FOCUS = "app.extensionManager.command.execute('Workspace.ToggleFocusMode')"
# What surrounds the graph but for its notes.
GRAPH = """() => {
    const title = LiteGraph.NODE_TITLE_HEIGHT, room = 20;
    const boxes = app.graph.nodes.filter(node => !node.type.includes('Note'))
        .map(node => [node.pos[0], node.pos[1] - title, node.size[0], node.size[1] + title]);
    boxes.push(...app.graph.groups.map(group => [...group.pos, ...group.size]));
    const [left, top] = [0, 1].map(at => Math.min(...boxes.map(box => box[at])) - room);
    const [right, bottom] = [0, 1].map(
        at => Math.max(...boxes.map(box => box[at] + box[at + 2])) + room);
    return [left, top, right - left, bottom - top];
}"""
SHOW_PART = """box => {
    app.canvas.ds.fitToBounds(box, { zoom: 1 });
    app.canvas.setDirty(true, true);
}"""
SHOW_NODE_AT = """([x, y]) => {
    const [left, top] = app.graph.nodes[0].pos;
    app.canvas.ds.offset[0] = x - left;
    app.canvas.ds.offset[1] = y - top;
    app.canvas.setDirty(true, true);
}"""
EMPTY = "() => { app.graph.clear(); app.canvas.ds.reset(); app.canvas.setDirty(true, true); }"
# A font without Chinese letters draws the same box for each.
HAS_CHINESE = """() => {
    const drawn = letter => {
        const canvas = document.createElement('canvas');
        const pen = canvas.getContext('2d');
        pen.font = '40px sans-serif';
        pen.fillText(letter, 10, 60);
        return canvas.toDataURL();
    };
    return drawn('\\u4e2d') !== drawn('\\u6587');
}"""
PANEL_PX = 480  # the panel with help is narrower at first, and cuts tables off


class LeftOutError(RuntimeError):
    """A picture that cannot be taken here; the message says why."""


@dataclass(frozen=True)
class Studio:
    """What takes a picture.

    Attributes:
        page: ComfyUI's page.
        server: The ComfyUI behind it.
    """

    page: ComfyPage
    server: Server

    def open(self, width: int, height: int, **settings: Any) -> None:
        """Load the page in some size and with some settings; all others are the plain ones."""
        for name, value in (PLAIN | settings).items():
            self.server.post(f"/settings/{name}", value)
        self.page.page.set_viewport_size({"width": width, "height": height})
        self.page.load(self.server.url)

    def rest(self, seconds: float = 1) -> None:
        """Let the page settle: it glides, fades in, and loads pictures."""
        self.page.page.wait_for_timeout(1000 * seconds)


def main() -> None:
    """Take all pictures, or those that are named."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*", choices=[*SHOTS, []], metavar="name")
    names = arguments.parse_args().names or SHOTS
    host = reexec_in_venv()
    from demo.install import write_models
    from tools.browser import open_tab
    from tools.comfy_page import SETTINGS, ComfyPage
    from tools.server import Server

    base = HOSTS / "screenshots"
    write_models(base)
    options = ("--use-pytorch-cross-attention",)
    # Beside the browser, threads wait for each other longer than they compute.
    server = Server(host, base, options=options, environment={"OMP_NUM_THREADS": "1"})
    with server, open_tab(WIDTH_PX, WIDTH_PX) as tab:
        tab.add_init_script(NO_BANNER)
        for name, value in SETTINGS.items():
            server.post(f"/settings/{name}", value)
        with ComfyPage(tab) as page:
            for name in names:
                try:
                    picture = SHOTS[name](Studio(page, server))
                except LeftOutError as error:
                    print(f"{name}: left out, {error}", flush=True)
                else:
                    print(write(picture, target(name, texts())), flush=True)


def gallery(studio: Studio) -> bytes:
    """Show the gallery of workflows with this pack's category."""
    from demo.page.places import Places

    studio.open(1700, 1150)
    places = Places(studio.page.page)
    places.templates.click()
    places.category.click()
    thumbnails = places.gallery.locator("img").first
    studio.page.wait_for_element(thumbnails, "the gallery's pictures", 20)
    studio.rest(2)
    return places.gallery.screenshot()


def after_run(studio: Studio, number: str, *, nodes_2: bool = False) -> bytes:
    """Show a workflow after it has run, without the page's bars.

    Args:
        studio: What takes the picture.
        number: That the workflow's name begins with.
        nodes_2: On the canvas of Nodes 2.0.
    """
    from tools import workflows
    from tools.comfy_page import NODES_RENDERED

    (path,) = workflows.FOLDER.glob(f"{number} *.json")
    page, tab = studio.page, studio.page.page
    studio.open(1600, 1000, **{"Comfy.VueNodes.Enabled": nodes_2})
    page.open_workflow(for_picture(workflows.load(path)), path.stem)
    if nodes_2:
        page.wait_for_script(NODES_RENDERED, "the nodes of Nodes 2.0", 20)
    tab.evaluate(FOCUS)
    box = tab.evaluate(GRAPH)
    tab.set_viewport_size({"width": 1600, "height": round(1600 * box[3] / box[2])})
    studio.rest()
    tab.evaluate(SHOW_PART, box)
    page.run()
    studio.rest()
    return tab.screenshot()


def search(studio: Studio) -> bytes:
    """Show what ComfyUI's search finds for words that people type."""
    if "search_aliases" not in studio.server.object_info("CLEARLoader"):
        raise LeftOutError("this ComfyUI searches names only; COMFYUI=... takes a newer one")
    studio.open(1200, 700)
    tab = studio.page.page
    tab.evaluate(EMPTY)
    tab.evaluate(SEARCH)
    field = tab.locator("input:focus")
    studio.page.wait_for_element(field, "the search of nodes", 20)
    field.press_sequentially("flux 8k", delay=60)
    studio.rest(2)
    return tab.screenshot()


def help_page(studio: Studio, node_id: str, language: str = "en") -> bytes:
    """Show a node's help page open beside it.

    Args:
        studio: What takes the picture.
        node_id: The node's type.
        language: Of the page.
    """
    studio.open(1200, 840, **{"Comfy.Locale": language})
    page, tab = studio.page, studio.page.page
    if language == "zh" and not tab.evaluate(HAS_CHINESE):
        raise LeftOutError("no font with Chinese letters is installed")
    text = (ROOT / "web" / "docs" / node_id / f"{language}.md").read_text(encoding="utf-8")
    page.help_of(node_id, text.splitlines()[0].removeprefix("# "))
    edge = tab.locator(".p-splitter-gutter:visible").first.bounding_box()
    if edge is not None:
        tab.mouse.move(edge["x"] + edge["width"] / 2, 400)
        tab.mouse.down()
        tab.mouse.move(PANEL_PX, 400, steps=8)
        tab.mouse.up()
        tab.mouse.move(PANEL_PX + 200, 800)
    tab.evaluate(SHOW_NODE_AT, [PANEL_PX + 250, 210])
    studio.rest(2)
    return tab.screenshot()


SHOTS: dict[str, Callable[[Studio], bytes]] = {
    "gallery": gallery,
    **{f"run-{number}": partial(after_run, number=number) for number in ("01", "02", "04")},
    **{
        f"run-{number}-nodes-2": partial(after_run, number=number, nodes_2=True)
        for number in ("01", "02", "04")
    },
    "search": search,
    "help": partial(help_page, node_id="CLEARLoader"),
    "chinese": partial(help_page, node_id="CLEARUpscale", language="zh"),
}
"""The pictures by the names of their files."""


def for_picture(workflow: dict[str, Any]) -> dict[str, Any]:
    """Return a workflow as the demo paints it in seconds, its seed and prompt fitting the picture.

    A seed that is drawn anew behind a run would not be the one that painted, and the prompt that
    describes ComfyUI's example picture does not fit the demo's.
    """
    from demo.tiles.against_tiles import PROMPT
    from tools import workflows

    workflow = workflows.with_demo_models(workflow, shrink=workflows.DEMO_SHRINK)
    for node in workflow["nodes"]:
        values = node.get("widgets_values")
        for place in workflows.SIZES.get(node["type"], ()):
            values[place] = min(values[place], LARGEST_PX)
        if node["type"] != "MarkdownNote" and values:
            node["widgets_values"] = ["fixed" if each == "randomize" else each for each in values]
    if workflows.nodes_of_type(workflow, "LoadImage"):
        (prompt,) = workflows.nodes_of_type(workflow, "CLIPTextEncode")
        prompt["widgets_values"][0] = PROMPT
    return workflow


if __name__ == "__main__":
    main()
