"""Put the reports of the runs behind a picture into the prompt that is saved with it.

A report belongs to the result of a run, which the host may take from its cache in a later prompt,
where no node of this pack runs at all. So reports are kept by the signature of the node that
sampled, and a progress handler writes those of a node's own inputs when the node starts.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import OrderedDict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import ProgressHandler, add_progress_handler, get_progress_state
from comfy_execution.utils import get_executing_context

META_KEY = "clear_attention"
"""The report's key in a node's `_meta`, which takes no part in the host's cache keys."""

MOST_RUNS = 512
"""Runs whose reports are kept, a few kilobytes each."""

Prompt = dict[str, Any]


@dataclass
class NodeRun:
    """What the sampling runs within one execution of a node reported.

    Attributes:
        prompt_id: Of the execution.
        texts: Id of the node that shows a report, and distinct texts in order.
    """

    prompt_id: str
    texts: dict[str, dict[str, None]] = field(default_factory=dict)


class SavedReports(ProgressHandler):
    """Reports of the last runs, and their way into the prompt of each node that starts."""

    def __init__(self, most: int = MOST_RUNS) -> None:
        super().__init__("clear_attention")
        self._most = most
        self._runs: OrderedDict[str, NodeRun] = OrderedDict()

    def watch(self) -> None:
        """Follow the nodes of the running prompt; harmless if they are followed already."""
        if get_progress_state().handlers.get(self.name) is not self:
            add_progress_handler(self)

    def start_handler(self, node_id: str, state: Any, prompt_id: str) -> None:
        """Write what belongs to a node that starts: it may save a picture."""
        self._write(get_progress_state().dynprompt, node_id)

    def add(self, text: str, node_id: str) -> None:
        """Keep a report of the running node's result, and write it.

        Args:
            text: The report.
            node_id: Node of this pack that shows it.
        """
        dynamic = get_progress_state().dynprompt
        prompt, shown_on = dynamic.get_original_prompt(), dynamic.get_display_node_id(node_id)
        context = get_executing_context()
        runner = "" if context is None else outermost(dynamic, context.node_id)
        if context is None or runner not in prompt:
            _enter(prompt.get(shown_on), text)
            return
        key = signature(prompt, runner, {})
        run = self._runs.get(key)
        if run is None or run.prompt_id != context.prompt_id:
            run = self._runs[key] = NodeRun(context.prompt_id)
        run.texts.setdefault(shown_on, {})[text] = None
        self._runs.move_to_end(key)
        while len(self._runs) > self._most:
            self._runs.popitem(last=False)
        self.watch()
        self._write(dynamic, runner)

    def _write(self, dynamic: DynamicPrompt, node_id: str) -> None:
        """Put the reports of a node and of all in front of it into the prompt, and no others."""
        prompt = dynamic.get_original_prompt()
        known: dict[str, str] = {}
        found: dict[str, dict[str, str]] = {}
        for runner in upstream(prompt, outermost(dynamic, node_id)):
            run = self._runs.get(signature(prompt, runner, known))
            for shown_on, texts in (run.texts if run else {}).items():
                found.setdefault(shown_on, {})[runner] = "\n".join(texts)
        for shown_on, entry in prompt.items():
            _enter(entry, _joined(prompt, found.get(shown_on, {})))


SAVED_REPORTS = SavedReports()


def outermost(dynamic: DynamicPrompt, node_id: str) -> str:
    """Return the node of the prompt as it was queued, to which an expanded node belongs."""
    while (parent := dynamic.get_parent_node_id(node_id)) is not None:
        node_id = parent
    return node_id


def upstream(prompt: Prompt, node_id: str, known: Container[str] = ()) -> list[str]:
    """List the nodes in front of a node and the node itself, inputs before what they go into.

    Args:
        prompt: As it was queued.
        node_id: Of the node.
        known: Nodes that are left out, with all that only they lead to.
    """
    listed: dict[str, None] = {}
    waiting = [(node_id, False)]
    entered: set[str] = set()
    while waiting:
        current, inputs_listed = waiting.pop()
        if inputs_listed:
            listed[current] = None
        elif current in prompt and current not in entered and current not in known:
            entered.add(current)
            waiting.append((current, True))
            links = (value[0] for value in _inputs(prompt, current).values() if _is_link(value))
            waiting += [(link, False) for link in reversed(list(links))]
    return list(listed)


def signature(prompt: Prompt, node_id: str, known: dict[str, str]) -> str:
    """Return what a node's result follows from, as the host's cache knows it.

    Ids count only where they do for the host: a copied sampler takes the other one's result.

    Args:
        prompt: As it was queued.
        node_id: Of the node.
        known: Signatures of this prompt found so far; filled.
    """
    for current in upstream(prompt, node_id, known):  # inputs first: no recursion in long chains
        node = prompt[current]
        inputs = {
            name: [known.get(value[0]), value[1]] if _is_link(value) else value
            for name, value in _inputs(prompt, current).items()
        }
        kind = str(node.get("class_type"))
        own = current if _counts_by_id(kind) else None
        parts = [kind, own, node.get("is_changed"), inputs]
        text = json.dumps(parts, sort_keys=True, default=repr)
        known[current] = hashlib.sha256(text.encode()).hexdigest()
    return known.get(node_id, "")


def _counts_by_id(kind: str) -> bool:
    # By name: the host's `nodes` is hidden from type checkers by this pack's own.
    known = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
    return bool(getattr(known.get(kind), "NOT_IDEMPOTENT", False))


def _inputs(prompt: Prompt, node_id: str) -> Mapping[str, Any]:
    return prompt[node_id].get("inputs") or {}


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _joined(prompt: Prompt, texts: Mapping[str, str]) -> str:
    """Return one text; where several nodes sampled, each has a heading."""
    if len(texts) < 2:
        return "".join(texts.values())
    parts = (
        f"{prompt[runner].get('class_type')} (node {runner}):\n{text}"
        for runner, text in texts.items()
    )
    return "\n".join(parts)


def _enter(entry: Any, text: str) -> None:
    """Set the report of a prompt's entry, or remove it where there is none."""
    if not isinstance(entry, dict):
        return
    kept = entry.get("_meta")
    meta = kept if isinstance(kept, dict) else {}
    if text:
        entry["_meta"] = {**meta, META_KEY: text}
    else:
        meta.pop(META_KEY, None)
