"""Prefer the choice with the most votes."""

from __future__ import annotations

from align_dsl.types import Scenario, Votes


def majority(votes: Votes, scenario: Scenario) -> dict[str, float]:
    """Each vote weighs the same; without any vote all choices weigh the same."""
    counts = {c.id: 0 for c in scenario.choices}
    for vote in votes:
        counts[vote.choice] += 1
    most = max(counts.values(), default=0)
    winners = {c for c, n in counts.items() if n == most}
    return {c: 1 / len(winners) if c in winners else 0.0 for c in counts}
