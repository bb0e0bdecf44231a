"""How many questions got a decision at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align_dsl.types import Case, Decision, Score, Target


def decided(decisions: Sequence[Decision], cases: Mapping[str, Case], target: Target) -> Score:
    """Decisions made and decisions that never came. Being right is not asked for."""
    made = sum(1 for d in decisions if d.choice is not None)
    return Score(
        metric="decided",
        value=1.0 if made else None,
        n=made,
        failed=len(decisions) - made,
    )
