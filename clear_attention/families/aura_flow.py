"""AuraFlow: FLUX-like blocks, registers and text in front, a learned table of positions."""

from __future__ import annotations

from .family import AttentionKind, Family

AURA_FLOW = Family(
    key="aura_flow",
    title="AuraFlow",
    kinds=(AttentionKind("double"), AttentionKind("single")),
    positions="table",
)
