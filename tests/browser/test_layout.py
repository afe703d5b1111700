"""Example workflows in Nodes 2.0, which draws nodes larger: none lies over another."""

from __future__ import annotations

import pytest
from pack import EXAMPLES, WORKFLOWS, shrink

pytestmark = pytest.mark.long
SETTING = "/settings/Comfy.VueNodes.Enabled"
RUN = ("01 Text to image at 2048 pixels", "05 Edit a picture with Kontext")
"""Those that grow most in a run: reports on nodes, and a picture in the middle of a column."""


@pytest.fixture(scope="module")
def nodes_2(server):
    """A page that renders nodes as Nodes 2.0, for this file."""
    server.post(SETTING, True)
    yield
    server.post(SETTING, False)


@pytest.fixture
def page(nodes_2, page_as_it_is, server):
    """The page; it reads the setting when it loads."""
    from .comfy_page import NODES_RENDERED

    def opened(workflow, name):
        page_as_it_is.open_workflow(workflow, name)
        page_as_it_is.wait_for_script(NODES_RENDERED, "the nodes of Nodes 2.0", 20)
        page_as_it_is.fit_view()
        return page_as_it_is

    return opened


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_node_lies_over_another_in_nodes_2(page, name):
    from tools import workflows

    opened = page(workflows.load(WORKFLOWS / f"{name}.json"), name)
    assert opened.overlaps() == []
    opened.close_dialog()


@pytest.mark.parametrize("name", RUN)
def test_no_node_lies_over_another_in_nodes_2_after_a_run(page, name):
    from tools import workflows

    workflow = workflows.load(WORKFLOWS / f"{name}.json")
    opened = page(workflows.with_demo_models(workflow, shrink=shrink(name)), name)
    opened.run()
    assert "radius 8" in opened.node_text("CLEARLoader")
    opened.page.wait_for_timeout(500)  # pictures and reports take their room
    assert opened.overlaps() == []
