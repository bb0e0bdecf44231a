"""The share of decisions that the labels put nearest to the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align_dsl.records.judge import judge
from align_dsl.records.stats import chance, wilson
from align_dsl.types import Case, Decision, Score, Target


def accuracy(decisions: Sequence[Decision], cases: Mapping[str, Case], target: Target) -> Score:
    """Correct among those that were decided and that the labels can judge; failures are counted."""
    judged = [judge(d, cases[d.scenario], target) for d in decisions]
    kept = [j for j in judged if not j.left_out]
    decided = [j for j in kept if j.correct is not None]
    correct = sum(1 for j in decided if j.correct)
    interval = wilson(correct, len(decided)) if decided else None
    by_luck = chance([(j.right, j.choices) for j in kept]) if kept else None
    return Score(
        metric="accuracy",
        value=interval.value if interval else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=len(decided),
        left_out=len(judged) - len(kept),
        failed=len(kept) - len(decided),
        chance=by_luck.value if by_luck else None,
    )
