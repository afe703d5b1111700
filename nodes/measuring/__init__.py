"""Nodes that measure and calculate: what CLEAR would cost and gain, what attention sees."""

from .locality import CLEARLocality
from .plan import CLEARPlan
from .window_preview import CLEARWindowPreview

__all__ = ["CLEARLocality", "CLEARPlan", "CLEARWindowPreview"]
