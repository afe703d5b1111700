"""The distiller's command with the host imported and ready to run: imported before forks of it."""

import os
from pathlib import Path

import torch._dynamo  # imported by the first backward pass
import torch.distributed.fsdp  # noqa: F401

from clear_attention.config.command import open_host

HOST, BASE = Path(os.environ["COMFYUI_HOST"]), Path(os.environ["COMFYUI_BASE"])

open_host("clear_attention.comfyui.distill.command", HOST, BASE, cpu=True)
