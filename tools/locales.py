"""Hold the translations against the nodes' texts: what is missing, what is stale.

``locales/en`` is written from the schemas. A text that changes there makes its translations stale:
``--write`` takes the new English in, and the old translations out, which are missing from then on.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.host import ROOT, find_host

FOLDER = ROOT / "locales"
LANGUAGES = ("zh", "zh-TW", "ja", "ko", "fr", "es", "de", "ru", "pt-BR")
FILE = "nodeDefs.json"

Texts = dict[tuple[str, ...], str]
"""Texts by their path in a file, such as ``("CLEARLoader", "inputs", "model", "tooltip")``."""


def main() -> int:
    """Print what is to be done, or write what can be; return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write English, drop stale texts")
    write = parser.parse_args().write
    current = schema_texts(load_pack(host_folder()))
    if write:
        changed = stale(current)
        save("en", current)
        for language in LANGUAGES:
            known = read(language)
            save(language, {key: known[key] for key in current if key in known.keys() - changed})
    faults = [fault for language in LANGUAGES for fault in faults_of(language, current)]
    print("\n".join(faults) or f"{len(LANGUAGES)} languages have all {len(current)} texts.")
    return int(bool(faults))


def faults_of(language: str, current: Texts) -> list[str]:
    """Return a line for each text that a language lacks, or has of an earlier schema."""
    known, changed = read(language), stale(current)
    missing = [key for key in current if key not in known]
    old = [key for key in known if key not in current or key in changed]
    return [
        *(f"{language}: missing {'.'.join(key)}: {current[key]}" for key in missing),
        *(f"{language}: stale {'.'.join(key)}" for key in old),
    ]


def stale(current: Texts) -> set[tuple[str, ...]]:
    """Return the texts that are not what ``locales/en`` has, from which people translate."""
    english = read("en")
    return {key for key in english.keys() | current.keys() if english.get(key) != current.get(key)}


def schema_texts(node_classes: Mapping[str, Any]) -> Texts:
    """Return what the page shows of the nodes, in its format for translations."""
    texts: Texts = {}
    for kind, node in node_classes.items():
        schema = node.define_schema()
        texts[kind, "display_name"] = schema.display_name
        texts[kind, "description"] = schema.description
        for each in schema.inputs:
            texts[kind, "inputs", each.id, "name"] = each.display_name or each.id
            texts[kind, "inputs", each.id, "tooltip"] = each.tooltip
        for at, each in enumerate(schema.outputs):
            texts[kind, "outputs", str(at), "name"] = each.display_name
            texts[kind, "outputs", str(at), "tooltip"] = each.tooltip
    return {key: text for key, text in texts.items() if text}


def read(language: str, name: str = FILE) -> Texts:
    """Read a file of texts, empty where there is none."""
    path = FOLDER / language / name
    if not path.exists():
        return {}
    return dict(_flat(json.loads(path.read_text(encoding="utf-8")), ()))


def save(language: str, texts: Texts, name: str = FILE) -> None:
    """Write a file of texts."""
    tree: dict[str, Any] = {}
    for key, text in texts.items():
        branch = tree
        for part in key[:-1]:
            branch = branch.setdefault(part, {})
        branch[key[-1]] = text
    path = FOLDER / language / name
    path.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps(tree, ensure_ascii=False, indent=2)
    path.write_text(written + "\n", encoding="utf-8", newline="\n")


def host_folder() -> Path:
    """Return the ComfyUI that is named by ``COMFYUI_HOST``, or the one that tests use."""
    known = os.environ.get("COMFYUI_HOST")
    return Path(known) if known else find_host().folder


def load_pack(host: Path) -> dict[str, Any]:
    """Load the pack as a host does, and return its node classes by id."""
    sys.path = [str(host), *(each for each in sys.path if Path(each or ".").resolve() != ROOT)]
    importlib.import_module("comfy.cli_args").args.cpu = True
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def nodes() -> list[Any]:
        return await (await module.comfy_entrypoint()).get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(nodes())}


def _flat(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*path, name))
        else:
            yield (*path, name), value


if __name__ == "__main__":
    raise SystemExit(main())
