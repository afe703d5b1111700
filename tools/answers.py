"""What a ComfyUI server answers, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class ServerError(RuntimeError):
    """The server died, refused a prompt, or a node of it failed."""


def parse_progress(message: str | bytes, prompt_id: str) -> tuple[str, int, int] | None:
    """Read node, steps done and steps in all from a message, if it is a step of this prompt."""
    kind, data = _event(message)
    if kind != "progress" or data.get("prompt_id") != prompt_id:
        return None
    return str(data["node"]), int(data["value"]), int(data["max"])


def is_end(message: str | bytes, prompt_id: str) -> bool:
    """Say whether a message is the last one about a prompt, which is in the history by then."""
    kind, data = _event(message)
    return kind == "executing" and data["node"] is None and data.get("prompt_id") == prompt_id


def _event(message: str | bytes) -> tuple[str, dict[str, Any]]:
    """Read a message's kind and data; those of a preview picture are empty."""
    if isinstance(message, bytes) or not message:
        return "", {}
    event = json.loads(message)
    return event.get("type", ""), event.get("data", {})


def succeeded(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a history entry, or raise what went wrong in it."""
    status = entry.get("status") or {}
    if status.get("status_str") != "error":
        return entry
    for kind, data in status.get("messages", ()):
        if kind == "execution_error":
            trace = "".join(data.get("traceback", ()))
            raise ServerError(f"{where(data)}: {data['exception_message']}\n{trace}")
        if kind == "execution_interrupted":
            raise ServerError(f"{where(data)} was interrupted.")
    raise ServerError(f"The prompt failed: {status}")


def where(event: Mapping[str, Any]) -> str:
    """Name the node that an event is about."""
    return f"{event['node_type']} (node {event['node_id']})"


def refusal(text: str) -> str:
    """Put ComfyUI's answer to a bad request into words: per node, what it objects to."""
    try:
        answer = json.loads(text)
        lines = [answer["error"]["message"]]
        for node, faults in (answer.get("node_errors") or {}).items():
            for fault in faults["errors"]:
                lines.append(
                    f"{faults['class_type']} (node {node}): {fault['message']}: {fault['details']}"
                )
    except (ValueError, KeyError, TypeError):
        return text
    return "\n".join(lines)


def tail(text: str, lines: int = 40) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])
