"""Nodes for several devices: a picture on one machine or several, and its decoding."""

from .cluster import CLEARCluster
from .decode import CLEARParallelDecode
from .picture import CLEARParallel

__all__ = ["CLEARCluster", "CLEARParallel", "CLEARParallelDecode"]
