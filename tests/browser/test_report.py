"""A report on a node, and a node in another language, as the page shows them."""

from __future__ import annotations

import pytest

from tools import locales

LONG = "  \n".join(
    (
        "CLEAR on: 5.0x less attention work, 31 s instead of about 96 s",
        "tiled, radius 16, 256 text + 128 x 128 image tokens",
        "another node has replaced the positional embedding after CLEAR High Resolution, so that "
        "ntk_factor 10 has no effect. Put CLEAR High Resolution behind that node",
    )
)
SHOW = """([kind, text]) => {
    app.graph.clear();
    const node = LiteGraph.createNode(kind);
    node.pos = [300, 200];
    app.graph.add(node);
    node.setSize([340, node.computeSize()[1]]);
    app.canvas.ds.reset();
    app.canvas.setDirty(true, true);
    const id = String(node.id);
    window.comfyAPI.api.api.dispatchCustomEvent('progress_text', {nodeId: id, text});
}"""
# The boxes of the text: what is shown, and what there is to show.
BOXES = """() => [...document.querySelectorAll('div')]
    .filter(box => box.textContent.includes('CLEAR on: ') && box.clientHeight)
    .map(box => [box.clientHeight, box.scrollHeight, box.innerText])"""


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
def test_a_report_is_shown_whole_with_its_lines_apart(as_the_user_sets, page_as_it_is, server, vue):
    as_the_user_sets(VueNodes_Enabled=vue)
    page = page_as_it_is
    page.load(server.url)
    page.page.evaluate(SHOW, ["CLEARLoader", LONG])
    page.page.wait_for_timeout(1_500)
    boxes = page.page.evaluate(BOXES)
    assert boxes and all(there <= shown + 1 for shown, there, _ in boxes)
    lines = [line for line in boxes[-1][2].splitlines() if line.strip()]
    assert [line.strip() for line in lines] == [line.strip() for line in LONG.splitlines()]
    assert page.errors == []


def test_a_page_in_chinese_shows_titles_and_tooltips_in_chinese(
    as_the_user_sets, page_as_it_is, server
):
    as_the_user_sets(Locale="zh")
    page, texts = page_as_it_is, locales.read("zh")
    page.load(server.url)
    page.page.evaluate(SHOW, ["CLEARLoader", "CLEAR on"])
    page.page.wait_for_timeout(1_500)
    title, tooltips = page.page.evaluate(
        "() => { const [node] = app.graph.nodes; return [node.title, "
        "Object.fromEntries(node.widgets.map(one => [one.name, [one.label, one.tooltip]]))] }"
    )
    assert title == texts["CLEARLoader", "display_name"]
    name, tooltip = tooltips["strength"]
    assert name == texts["CLEARLoader", "inputs", "strength", "name"]
    assert tooltip in (texts["CLEARLoader", "inputs", "strength", "tooltip"], None)
