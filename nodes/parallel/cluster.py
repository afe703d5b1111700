"""CLEAR Cluster: one picture on several machines."""

from typing import Any

from comfy_api.latest import io

from ...clear_attention.comfyui.parallel.cluster.node import with_cluster
from ..inputs import CATEGORY, found_as, model_input
from ..reported import ReportedNode


class CLEARCluster(ReportedNode):
    """A picture's rows shared out among machines."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLEARCluster",
            display_name="CLEAR Cluster",
            category=CATEGORY,
            **found_as("multi gpu, several machines, network, ray, distributed, server farm"),
            description=(
                "Paints one picture on GPUs of several machines, which Ray connects: each computes "
                "a part of its rows. The picture is the same as from one GPU. Every machine loads "
                "the whole model by the nodes in front of this one, which must be the last in "
                "front of the sampler. Linux only; see docs/cluster.md."
            ),
            inputs=[
                model_input(),
                io.String.Input(
                    "address",
                    default="auto",
                    tooltip=(
                        'Where Ray runs, as host:port, on this machine. "auto" takes the one that '
                        'runs here, or starts one; "local" starts one for the GPUs of this machine '
                        "alone, which ends with ComfyUI."
                    ),
                ),
                io.Int.Input(
                    "gpus",
                    default=1,
                    min=1,
                    max=64,
                    tooltip=(
                        "How many GPUs help the one that ComfyUI samples on. 1 makes two that "
                        "share a picture."
                    ),
                ),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            # Workers run what stands in front of this very node.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model: Any, address: str = "auto", gpus: int = 1) -> io.NodeOutput:
        prompt, node_id = (cls.hidden.prompt, cls.hidden.unique_id) if cls.hidden else ({}, "")
        return io.NodeOutput(with_cluster(model, address, gpus, prompt or {}, node_id or ""))
