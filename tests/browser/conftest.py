"""ComfyUI's own page in a headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tools.server import Server

    from .comfy_page import ComfyPage

SCREENSHOTS = Path(__file__).parents[2] / "output" / "screenshots"
# Headless, quiet and offline: a browser that looks for updates or logs in tests nothing of ours.
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--metrics-recording-only", "--mute-audio"),
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium that the system has; none is downloaded."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("needs a Chromium: none of " + ", ".join(names) + " is on the path")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=found, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def comfy_page(
    server: Server, browser: Browser, request: pytest.FixtureRequest
) -> Iterator[ComfyPage]:
    """ComfyUI's page, opened; its last state goes to ``output/screenshots``."""
    from .comfy_page import ComfyPage

    server.post("/settings/Comfy.TutorialCompleted", True)  # else templates cover the page
    page = browser.new_page(viewport={"width": 2000, "height": 1100})
    page.route(lambda url: not url.startswith(server.url), lambda route: route.abort())
    yield ComfyPage(page, server.url)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = request.node.name.removeprefix("test_").translate(str.maketrans("[]", "--")).rstrip("-")
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    page.close()
