"""What the pack offers to users: its nodes and its example workflows, written down once."""

from __future__ import annotations

from pathlib import Path

WORKFLOWS = Path(__file__).parents[1] / "workflows"
EXAMPLES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
NODES = (
    "CLEARLoader",
    "CLEARAttention",
    "CLEARHighRes",
    "CLEARSeamless",
    "CLEARSeamlessDecode",
    "CLEARControlNet",
    "CLEARUpscale",
    "CLEARLowMemory",
    "CLEARPlan",
    "CLEARWindowPreview",
    "CLEARLocality",
    "CLEARDistill",
    "CLEARExtractLoRA",
)
