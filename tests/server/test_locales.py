"""What the server hands the page of the pack's translations."""

from __future__ import annotations

import urllib.request

from tools import locales


def test_the_server_hands_out_every_language(server):
    texts = server.get("/i18n")
    for language in locales.LANGUAGES:
        loader = texts[language]["nodeDefs"]["CLEARLoader"]
        assert loader["display_name"] == locales.read(language)["CLEARLoader", "display_name"]
        assert texts[language]["nodeCategories"]["measure"]


def test_a_help_page_is_there_in_chinese_and_japanese(server):
    for language in ("zh", "ja"):
        path = f"/extensions/clear-attention/docs/CLEARLoader/{language}.md"
        title = locales.read(language)["CLEARLoader", "display_name"]
        with urllib.request.urlopen(server.url + path) as answer:
            assert answer.read().decode().startswith(f"# {title}\n")
