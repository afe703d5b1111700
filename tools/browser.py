"""A headless Chromium that this machine has; none is downloaded."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Headless, quiet and offline: a browser that looks for updates or logs in tests nothing of ours.
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--metrics-recording-only", "--mute-audio"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# The page keeps its last workflow, and would open it instead of its first one.
FORGET = "localStorage.clear(); sessionStorage.clear()"


class NoBrowserError(RuntimeError):
    """No Chromium was found; the message says where it was looked for."""


@contextlib.contextmanager
def open_tab(width: int, height: int) -> Generator[Page]:
    """Open a tab of a new browser that forgets ComfyUI's last workflow, and close both behind it.

    While it is open, this process has a running event loop.

    Args:
        width: Of the page, in pixels.
        height: The same.

    Raises:
        NoBrowserError: There is no Chromium on the path, nor one of Playwright's.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as run:
        found = next(filter(None, map(shutil.which, NAMES)), run.chromium.executable_path)
        if not Path(found).is_file():
            raise NoBrowserError(
                f"A Chromium must be on the path ({', '.join(NAMES)}) or installed by "
                "`playwright install chromium`, got neither."
            )
        browser = run.chromium.launch(executable_path=found, args=list(OPTIONS))
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.add_init_script(FORGET)
        yield tab
        browser.close()
