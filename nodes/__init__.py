"""What the user sees: the nodes' schemas."""

from comfy_api.latest import ComfyExtension, io

from ..clear_attention.comfyui.core.host import server
from ..clear_attention.comfyui.weights.folder import make_model_folder
from .attention import CLEARAttention
from .controlnet import CLEARControlNet
from .distill import CLEARDistill
from .extract_lora import CLEARExtractLoRA
from .high_resolution import CLEARHighRes
from .loader import CLEARLoader
from .low_memory import CLEARLowMemory
from .measuring import CLEARCompare, CLEARLocality, CLEARPlan, CLEARWindowPreview
from .parallel import CLEARCluster, CLEARParallel, CLEARParallelDecode
from .seamless import CLEARSeamless, CLEARSeamlessDecode
from .upscale import CLEARUpscale


class CLEARExtension(ComfyExtension):
    """The pack's nodes, in the order of the menu."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CLEARLoader,
            CLEARAttention,
            CLEARHighRes,
            CLEARSeamless,
            CLEARSeamlessDecode,
            CLEARControlNet,
            CLEARUpscale,
            CLEARLowMemory,
            CLEARParallel,
            CLEARParallelDecode,
            CLEARCluster,
            CLEARPlan,
            CLEARWindowPreview,
            CLEARLocality,
            CLEARCompare,
            CLEARDistill,
            CLEARExtractLoRA,
        ]


async def comfy_entrypoint() -> CLEARExtension:
    """Tell ComfyUI which nodes this pack has; its server also gets their folder of files."""
    if server() is not None:
        make_model_folder()
    return CLEARExtension()
