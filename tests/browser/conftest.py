"""ComfyUI's own page in a headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tools.comfy_page import ComfyPage
    from tools.server import Server

SCREENSHOTS = Path(__file__).parents[2] / "output" / "screenshots"


@pytest.fixture(scope="package")
def tab(server: Server) -> Iterator[Page]:
    """A tab of a Chromium that the system has; none is downloaded.

    One for all tests of this folder: what a browser remembers of a page's scripts, it remembers for
    its tabs. It is closed behind them: while it is open, this process has a running event loop.
    """
    pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    from tools.browser import NoBrowserError, open_tab
    from tools.comfy_page import SETTINGS

    for name, value in SETTINGS.items():
        server.post(f"/settings/{name}", value)
    try:
        with open_tab(2000, 1100) as tab:
            yield tab
    except NoBrowserError as error:
        pytest.skip(str(error))


@pytest.fixture
def open_page(tab: Page, request: pytest.FixtureRequest) -> Iterator[ComfyPage]:
    """A page that is still to be loaded; its last state goes to ``output/screenshots``."""
    from tools.comfy_page import ComfyPage

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
