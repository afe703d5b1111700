"""Count what lies between ComfyUI's page and the first picture.

By ``python3 demo/page/first_result.py`` a mouse takes a user's way in a headless Chromium: the
gallery of workflows, this pack's category, the first workflow, Run. The demo's models stand in for
FLUX. Clicks and seconds are written into docs/workflows.md.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.markdown import replace_between
from tools.environment import reexec_in_venv
from tools.host import HOSTS, ROOT, Host

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tools.comfy_page import ComfyPage

PAGE = ROOT / "docs" / "workflows.md"
MARKS = (
    "<!-- first picture: written by demo/page/first_result.py -->",
    "<!-- end of first picture -->",
)
SCREEN_PX = (1920, 1080)
OPENED = "app.graph.nodes.some(node => node.type === 'CLEARLoader')"
VERSION = "window.__COMFYUI_FRONTEND_VERSION__"
ALIKE = "flux_dev_full_text_to_image"
"""A template of ComfyUI's with the same FLUX files, whose size its list of templates states."""


@dataclass(frozen=True)
class Stage:
    """A part of the way.

    Attributes:
        what: Is clicked on, or happens.
        clicks: That it takes.
        notches: Of the mouse wheel.
        seconds: From the beginning until its result is shown.
    """

    what: str
    clicks: int
    notches: int
    seconds: float


def main() -> None:
    """Take the way, print it, and write it into the docs."""
    host = reexec_in_venv()
    from benchmarks.results_file import device_name
    from demo.install import write_models
    from demo.page.places import CATEGORY
    from demo.page.stand_in import differences, write_pack
    from tools import workflows
    from tools.browser import open_tab
    from tools.comfy_page import SETTINGS, ComfyPage
    from tools.server import PACKS, Server

    base, path = HOSTS / "first-result", workflows.example_workflows()[0]
    write_models(base)
    write_pack(base / CATEGORY, workflows.DEMO_SHRINK)
    packs = PACKS | {CATEGORY: base / CATEGORY}
    load = other_load()
    # Threads that wait for each other leave the cores to the browser.
    waiting = {"OMP_WAIT_POLICY": "passive"}
    options = ("--use-pytorch-cross-attention",)
    server = Server(host, base, packs=packs, options=options, environment=waiting)
    with server, open_tab(*SCREEN_PX) as tab, ComfyPage(tab) as page:
        for name, value in SETTINGS.items():
            server.post(f"/settings/{name}", value)
        stages = walk(page, server.url, path.stem)
        version = tab.evaluate(VERSION)
        real = workflows.load(path)
        files = downloads(real)
        alike = server.get(f"/templates/{ALIKE}.json")
        size = known_gb(files, alike, server.get("/templates/index.json"))
    where = (
        f"ComfyUI {Host(host).version} with its page {version}, {os.cpu_count()} cores of "
        f"{device_name()}{load}"
    )
    instead = differences(real, workflows.with_demo_models(real, workflows.DEMO_SHRINK))
    text = "\n\n".join((table(stages), f"{where}.", stood_in(instead), needed(files, size)))
    print(text)
    replace_between(PAGE, text, *MARKS)


def walk(page: ComfyPage, url: str, workflow: str) -> list[Stage]:
    """Take the way from the page's address to the picture.

    Args:
        page: A browser's page.
        url: Of ComfyUI.
        workflow: Name of the one to run.

    Returns:
        Its stages, in their order.
    """
    from demo.page.hand import Hand
    from demo.page.places import CATEGORY, Places
    from tools.comfy_page import PICTURES_SHOWN

    places, hand = Places(page.page), Hand(page.page)

    def stage(what: str, act: Callable[[], None], arrived: Callable[[], None]) -> Stage:
        begun, clicks, notches = time.monotonic(), hand.clicks, hand.notches
        act()
        arrived()
        seconds = time.monotonic() - begun
        return Stage(what, hand.clicks - clicks, hand.notches - notches, seconds)

    def shown(element: Locator, what: str) -> Callable[[], None]:
        return lambda: page.wait_for_element(element, what, 30)

    def opened() -> None:
        page.wait_for_script(OPENED, "the workflow's nodes", 30)
        places.gallery.wait_for(state="hidden")

    card = places.card(workflow)
    return [
        stage("nothing yet: the page opens", lambda: page.load(url), lambda: None),
        stage(
            "*Templates*",
            lambda: hand.click(places.templates),
            shown(places.category, "this pack's category"),
        ),
        stage(f"*{CATEGORY}*", lambda: hand.click(places.category), shown(card, "its workflows")),
        stage(f"*{workflow}*", lambda: hand.click(card), opened),
        stage(
            "*Run*, until the picture is shown",
            lambda: hand.click(places.run),
            lambda: page.wait_for_script(PICTURES_SHOWN, "the picture", 180),
        ),
    ]


def table(stages: Sequence[Stage]) -> str:
    """Return the stages as a table, with their sum."""
    total = Stage(
        "**all of it**",
        sum(stage.clicks for stage in stages),
        sum(stage.notches for stage in stages),
        sum(stage.seconds for stage in stages),
    )
    lines = ["| What is clicked | Clicks | Seconds |", "|---|---|---|"]
    for stage in (*stages, total):
        turned = f", {stage.notches} notches of the wheel" if stage.notches else ""
        lines.append(f"| {stage.what}{turned} | {stage.clicks} | {stage.seconds:.1f} |")
    return "\n".join(lines)


def other_load() -> str:
    """Say how many processes run already, or nothing where the machine is idle."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f", beside a load of {load:.1f}" if load >= 0.5 else ""


def downloads(workflow: Mapping[str, Any]) -> list[str]:
    """List the files that a workflow offers for download, behind their folders."""
    return [
        f"{model['directory']}/{model['name']}"
        for node in workflow["nodes"]
        for model in node["properties"].get("models", ())
    ]


def known_gb(
    files: Sequence[str], alike: dict[str, Any], index: Sequence[Mapping[str, Any]]
) -> tuple[float, list[str]]:
    """Return the size in GB of the files whose size ComfyUI states, and the other files.

    Args:
        files: Behind their folders.
        alike: A workflow of ComfyUI's own.
        index: ComfyUI's list of its templates, with the size of what each needs in bytes.
    """
    known = downloads(flat(alike))
    sizes = {
        template["name"]: template.get("size") for group in index for template in group["templates"]
    }
    if not known or not set(known) <= set(files) or not sizes.get(ALIKE):
        return 0.0, list(files)
    return sizes[ALIKE] / 1e9, [name for name in files if name not in known]


def flat(workflow: dict[str, Any]) -> dict[str, Any]:
    """Return a workflow's nodes and those of its subgraphs in one list."""
    inside = workflow.get("definitions", {}).get("subgraphs", ())
    nodes = (node for subgraph in inside for node in subgraph["nodes"])
    return {"nodes": [*workflow["nodes"], *nodes]}


def stood_in(instead: Iterable[tuple[str, str]]) -> str:
    """Say what the demo has put in the place of what."""
    pairs = dict.fromkeys(f"`{other}` for {value}" for value, other in instead)
    return (
        "**What stood in.** No weights of FLUX were at hand: the gallery held this pack's "
        "workflows under their own names, with the [demo's models](../demo/README.md) and smaller "
        f"pictures in them ({', '.join(pairs)}). The seconds are those of that small model."
    )


def needed(files: Sequence[str], size: tuple[float, list[str]]) -> str:
    """Say what has to be downloaded for the workflow itself.

    Args:
        files: Behind their folders.
        size: In GB, and the files that are not in it.
    """
    gb, unknown = size
    names = ", ".join(f"`{name}`" for name in files)
    others = ", ".join(f"`{name}`" for name in unknown)
    stated = (
        f" Without {others} they are {gb:.1f} GB, by ComfyUI's list of templates." if gb else ""
    )
    return (
        f"**Not in the table: downloads.** The workflow needs {len(files)} files: {names}.{stated}"
    )


if __name__ == "__main__":
    main()
