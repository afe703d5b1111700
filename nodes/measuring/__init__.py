"""Nodes that measure and calculate: what CLEAR would cost and gain, what attention sees."""

from .compare import CLEARCompare
from .locality import CLEARLocality
from .plan import CLEARPlan
from .window_preview import CLEARWindowPreview

__all__ = ["CLEARCompare", "CLEARLocality", "CLEARPlan", "CLEARWindowPreview"]
