"""docs/models.md agrees with the families' rows; ``CLEAR_WRITE_DOCS=1`` writes it."""

from __future__ import annotations

import os

from ..hosts import ROOT
from .models_page import page

FILE = ROOT / "docs" / "models.md"


def test_the_page_of_models_is_the_one_that_the_tables_make(product):
    made = page(
        product("families"),
        product("comfyui.families"),
        product("comfyui.families.unsupported"),
        product("backends.triton.configs"),
    )
    if os.environ.get("CLEAR_WRITE_DOCS"):
        FILE.write_text(made, encoding="utf-8")
    assert FILE.read_text(encoding="utf-8") == made, "run this test with CLEAR_WRITE_DOCS=1"


def test_the_readme_names_every_family(product):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [family.title for family in product("families").FAMILIES if family.title not in text]
    assert missing == []
