"""What the pack offers to users: its nodes and its example workflows, written down once."""

from __future__ import annotations

from pathlib import Path

WORKFLOWS = Path(__file__).parents[1] / "workflows"
EXAMPLES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
# Example -> the host that has its model; the demo's models are FLUX.1's.
OTHER_MODELS = {
    "clear_flux2_klein": (0, 3, 75),
    "clear_krea2": (0, 33, 0),
    "clear_qwen_image_edit": (0, 3, 75),
    "clear_z_image": (0, 3, 75),
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
    "CLEARDistill",
    "CLEARExtractLoRA",
)


def shrink(name: str) -> int:
    """Return by what an example's sizes are divided in tests; one enlarges a given picture."""
    return 8 if name == "clear_upscale_any_image" else 16
