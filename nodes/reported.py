"""Nodes whose effect is reported in the pictures that are saved."""

from typing import Any

from comfy_api.latest import io

from ..clear_attention.comfyui.core.saved_reports import SAVED_REPORTS


class ReportedNode(io.ComfyNode):
    """A node that shows the report of the runs behind a picture."""

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Follow the nodes of each prompt that has this one, also where its result is cached.

        The host asks at the beginning of a prompt. The answer never changes.
        """
        SAVED_REPORTS.watch()
        return ""
