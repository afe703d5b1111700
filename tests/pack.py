"""What the pack offers to users: its nodes and its example workflows, written down once."""

from __future__ import annotations

from pathlib import Path

WORKFLOWS = Path(__file__).parents[1] / "workflows"
EXAMPLES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
# Example -> the host that has its model; the demo's models are FLUX.1's.
OTHER_MODELS = {
    "09 FLUX.2 Klein at 2048 pixels": (0, 3, 75),
    "10 Krea 2 at 2048 pixels": (0, 33, 0),
    "11 Edit a picture with Qwen-Image": (0, 3, 75),
    "08 Z-Image at 2048 pixels": (0, 3, 75),
}
PAINTED = [name for name in EXAMPLES if name not in OTHER_MODELS]
NODES = (
    "CLEARLoader",
    "CLEARAttention",
    "CLEARHighRes",
    "CLEARSeamless",
    "CLEARSeamlessDecode",
    "CLEARControlNet",
    "CLEARUpscale",
    "CLEARLowMemory",
    "CLEARParallel",
    "CLEARParallelDecode",
    "CLEARCluster",
    "CLEARPlan",
    "CLEARWindowPreview",
    "CLEARLocality",
    "CLEARCompare",
    "CLEARDistill",
    "CLEARExtractLoRA",
)


def shrink(name: str) -> int:
    """Return by what an example's sizes are divided in tests, so that none is beyond 256 pixels."""
    return 32 if name == "07 Prompt to 8K" else 16
