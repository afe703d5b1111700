"""CLEAR checkpoints: files, names and the windows that they were distilled for."""

from .checkpoint import Checkpoint, load, read, save
from .errors import CheckpointError

__all__ = ["Checkpoint", "CheckpointError", "load", "read", "save"]
