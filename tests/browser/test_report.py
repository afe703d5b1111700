"""What the page shows of reports, of other languages, and of Nodes 2.0."""

from __future__ import annotations

import pytest
from pack import EXAMPLES, WORKFLOWS, shrink

from tools import locales

pytestmark = pytest.mark.long

LONG = "  \n".join(
    (
        "CLEAR on: 3.1x faster, 5.0x less attention work, 31 s instead of about 96 s",
        "tiled, radius 16, 256 text + 128 x 128 image tokens",
        "another node has replaced the positional embedding after CLEAR High Resolution, so that "
        "ntk_factor 10 has no effect. Put CLEAR High Resolution behind that node",
    )
)
KEEPS_TRANSLATIONS = (1, 36)
SHOW = """([kind, text, change]) => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    node.pos = [300, 200];
    app.graph.add(node);
    node.setSize([340, node.computeSize()[1]]);
    app.canvas.ds.reset();
    app.canvas.setDirty(true, true);
    const id = String(node.id);
    for (const [name, value] of Object.entries(change ?? {})) {
        const widget = node.widgets.find(one => one.name === name);
        widget.value = value;
        widget.callback?.(value);
    }
    window.comfyAPI.api.api.dispatchCustomEvent('progress_text', {nodeId: id, text});
}"""
# A node's title, and the label and the place of one of its widgets.
WIDGET = """name => {
    const [node] = app.graph.nodes;
    const widget = node.widgets.find(one => one.name === name);
    const corner = app.canvas.canvas.getBoundingClientRect();
    const middle = [node.pos[0] + 60, node.pos[1] + widget.last_y + 12];
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(middle);
    return [node.title, widget.label, x + corner.left, y + corner.top];
}"""
# The boxes of the text: what is shown, and what there is to show.
BOXES = """() => [...document.querySelectorAll('div')]
    .filter(box => box.textContent.includes('CLEAR on: ') && box.clientHeight)
    .map(box => [box.clientHeight, box.scrollHeight, box.innerText])"""


RUN = ("01 Text to image at 2048 pixels", "05 Edit a picture with Kontext")
"""Those that grow most in a run: reports on nodes, and a picture in the middle of a column."""


@pytest.fixture
def as_the_user_sets(server):
    """Set settings of the page for one test."""
    usual = {"Comfy.VueNodes.Enabled": False, "Comfy.Locale": "en"}

    def change(**settings):
        for name, value in settings.items():
            server.post(f"/settings/Comfy.{name.replace('_', '.')}", value)

    yield change
    for name, value in usual.items():
        server.post(f"/settings/{name}", value)


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes 2.0"])
def test_a_report_is_shown_whole_with_its_lines_apart(as_the_user_sets, open_page, server, vue):
    as_the_user_sets(VueNodes_Enabled=vue)
    page = open_page
    page.load(server.url)
    page.page.evaluate(SHOW, ["CLEARLoader", LONG])
    page.wait_for_script(f"({BOXES})().length", "the report on its node", 20)
    page.page.wait_for_timeout(500)  # it takes its room
    boxes = page.page.evaluate(BOXES)
    assert boxes and all(there <= shown + 1 for shown, there, _ in boxes)
    lines = [line for line in boxes[-1][2].splitlines() if line.strip()]
    assert [line.strip() for line in lines] == [line.strip() for line in LONG.splitlines()]
    assert page.errors == []


def test_a_report_is_in_sight_in_nodes_2_after_a_widget_was_changed(
    as_the_user_sets, open_page, server
):
    """A seed changes at each run; pages of late 2025 then list a node's widgets no more."""
    as_the_user_sets(VueNodes_Enabled=True)
    page = open_page
    page.load(server.url)
    page.page.evaluate(SHOW, ["CLEARUpscale", LONG, {"steps": 7}])
    page.wait_for_script(f"({BOXES})().length", "the report on its node", 20)
    assert page.errors == []


def test_a_page_in_chinese_shows_titles_and_tooltips_in_chinese(
    as_the_user_sets, open_page, server
):
    """Pages of late 2025 drop the translations of all packs (ComfyUI_frontend issue 6748)."""
    as_the_user_sets(Locale="zh")
    page, texts = open_page, locales.read("zh")
    page.load(server.url)
    page.page.evaluate(SHOW, ["CLEARLoader", "CLEAR on"])
    page.page.wait_for_timeout(1_500)
    title, label, x, y = page.page.evaluate(WIDGET, "strength")
    version = page.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__")
    if tuple(map(int, version.split(".")[:2])) < KEEPS_TRANSLATIONS:
        assert title == locales.read("en")["CLEARLoader", "display_name"]
        return
    assert title == texts["CLEARLoader", "display_name"]
    assert label == texts["CLEARLoader", "inputs", "strength", "name"]
    page.page.mouse.move(x - 3, y - 3)
    page.page.mouse.move(x, y, steps=4)
    tooltip = page.page.locator(".node-tooltip")
    page.wait_for_element(tooltip, "the tooltip of an input", 20)
    assert tooltip.inner_text() == texts["CLEARLoader", "inputs", "strength", "tooltip"]


@pytest.fixture(scope="module")
def nodes_2(server, tab):
    """Let the page render nodes as Nodes 2.0 from its next start on."""
    server.post("/settings/Comfy.VueNodes.Enabled", True)
    tab.goto("about:blank")
    yield
    server.post("/settings/Comfy.VueNodes.Enabled", False)
    tab.goto("about:blank")


@pytest.fixture
def opened(nodes_2, page_as_it_is):
    """Open a workflow in Nodes 2.0: ``opened(workflow, name)`` is the page."""
    from tools.comfy_page import NODES_RENDERED

    def open_workflow(workflow, name):
        page_as_it_is.open_workflow(workflow, name)
        page_as_it_is.wait_for_script(NODES_RENDERED, "the nodes of Nodes 2.0", 20)
        page_as_it_is.settle()  # the page places nodes wrongly that it measures while it glides
        page_as_it_is.fit_view()
        return page_as_it_is

    return open_workflow


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_node_lies_over_another_in_nodes_2(opened, name):
    from tools import workflows

    page = opened(workflows.load(WORKFLOWS / f"{name}.json"), name)
    assert page.overlaps() == []
    page.close_dialog()


@pytest.mark.parametrize("name", RUN)
def test_no_node_lies_over_another_in_nodes_2_after_a_run(opened, name):
    from tools import workflows

    workflow = workflows.load(WORKFLOWS / f"{name}.json")
    page = opened(workflows.with_demo_models(workflow, shrink=shrink(name)), name)
    page.run()
    assert "radius 8" in page.node_text("CLEARLoader")
    page.settle()  # pictures and reports take their room
    assert page.overlaps() == []
