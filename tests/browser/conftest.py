"""ComfyUI's own page in a headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tools.server import Server

    from .comfy_page import ComfyPage

SCREENSHOTS = Path(__file__).parents[2] / "output" / "screenshots"
# Headless, quiet and offline: a browser that looks for updates or logs in tests nothing of ours.
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--metrics-recording-only", "--mute-audio"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# While a workflow runs, the page draws all of it in each frame, which takes a core.
FRAMES_PER_SECOND = 5
# The page keeps its last workflow, and would open it instead of its first one.
FORGET = "localStorage.clear(); sessionStorage.clear()"


@pytest.fixture(scope="package")
def tab(server: Server) -> Iterator[Page]:
    """A tab of a Chromium that the system has; none is downloaded.

    One for all tests of this folder: what a browser remembers of a page's scripts, it remembers for
    its tabs. It is closed behind them: while it is open, this process has a running event loop.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("needs a Chromium: none of " + ", ".join(names) + " is on the path")
    server.post("/settings/Comfy.TutorialCompleted", True)  # else templates cover the page
    server.post("/settings/LiteGraph.Canvas.MaximumFps", FRAMES_PER_SECOND)
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=found, args=list(OPTIONS))
        tab = browser.new_page(viewport={"width": 2000, "height": 1100})
        tab.add_init_script(FORGET)
        yield tab
        browser.close()


@pytest.fixture
def open_page(tab: Page, request: pytest.FixtureRequest) -> Iterator[ComfyPage]:
    """A page that is still to be loaded; its last state goes to ``output/screenshots``."""
    from .comfy_page import ComfyPage

    with ComfyPage(tab) as page:
        yield page
        keep_screenshot(tab, request.node.name)


@pytest.fixture
def page_as_it_is(server: Server, open_page: ComfyPage) -> ComfyPage:
    """ComfyUI's page as the test before has left it, for what replaces all that is on it."""
    if not open_page.is_loaded():
        open_page.load(server.url)
    return open_page


def keep_screenshot(tab: Page, test: str) -> None:
    """Write what the tab shows to a file with a test's name."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = test.removeprefix("test_").translate(str.maketrans("[]", "--")).rstrip("-")
    tab.screenshot(path=SCREENSHOTS / f"{name}.png")
