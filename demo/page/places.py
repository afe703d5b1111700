"""The places of ComfyUI's page that lead from its start to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CATEGORY = "clear-attention"
"""Of this pack's workflows in the gallery: its folder in ``custom_nodes``."""


@dataclass(frozen=True)
class Places:
    """Where to click.

    Attributes:
        page: The browser's page.
    """

    page: Page

    @property
    def templates(self) -> Locator:
        """The button in the side bar that opens the gallery of workflows."""
        return self.page.locator(".templates-tab-button")

    @property
    def gallery(self) -> Locator:
        """The gallery itself."""
        return self.page.locator("[role=dialog]:visible")

    @property
    def category(self) -> Locator:
        """This pack's entry in the gallery's list."""
        return self.gallery.get_by_text(CATEGORY, exact=True).first

    def card(self, workflow: str) -> Locator:
        """Return a workflow's card in the gallery."""
        return self.page.get_by_test_id(f"template-workflow-{workflow}")

    @property
    def run(self) -> Locator:
        """The button that queues the workflow."""
        return self.page.get_by_test_id("queue-button").get_by_role("button").first
