"""A hand on the mouse: it clicks only what is in sight, and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

NOTCH_PX = 100  # by which a mouse wheel scrolls at a time
MOST_NOTCHES = 100
# Whether a click on an element's middle would hit it.
IN_SIGHT = """element => {
    const box = element.getBoundingClientRect();
    const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return !!hit && (element.contains(hit) || hit.contains(element));
}"""


class Hand:
    """Moves the mouse, turns its wheel and clicks.

    Args:
        page: The browser's page, under the mouse.

    Attributes:
        clicks: How often it has clicked.
        notches: By how many notches it has turned the wheel.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0
        self.notches = 0

    def click(self, element: Locator) -> None:
        """Scroll to an element where it is out of sight, and click its middle.

        Raises:
            LookupError: Scrolling down has not brought it in sight.
        """
        element.wait_for()
        while not element.evaluate(IN_SIGHT):
            if self.notches == MOST_NOTCHES:
                raise LookupError(f"{element} must be in sight, {self.notches} notches did not do.")
            self._scroll_beside(element)
        self.page.mouse.move(*self._middle(element), steps=5)
        self.page.mouse.click(*self._middle(element))
        self.clicks += 1

    def _scroll_beside(self, element: Locator) -> None:
        size = self.page.viewport_size or {"width": 0, "height": 0}
        self.page.mouse.move(self._middle(element)[0], size["height"] / 2)
        self.page.mouse.wheel(0, NOTCH_PX)
        self.notches += 1
        self.page.wait_for_timeout(100)  # the page scrolls in its next frame

    def _middle(self, element: Locator) -> tuple[float, float]:
        box = element.bounding_box() or {"x": 0, "y": 0, "width": 0, "height": 0}
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
