"""The commands with the host imported and ready to run: imported before forks of it."""

import importlib
import os
from pathlib import Path

from clear_attention.config.command import open_host

# Imported with the first backward pass, with shards, with the first plot.
LATER = ("torch._dynamo", "torch.distributed.fsdp", "matplotlib.figure")
HOST, BASE = Path(os.environ["COMFYUI_HOST"]), Path(os.environ["COMFYUI_BASE"])

for name in LATER:
    importlib.import_module(name)
open_host("clear_attention.comfyui.distill.command", HOST, BASE, cpu=True).load_nodes()
