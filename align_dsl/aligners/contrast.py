"""Votes for the target count for a choice, votes for its opposite against it.

The weighted self-consistency of the NAACL'24 paper: a positive vote adds 1 to its choice; a
negative one takes 1/n from its choice and gives 1/n to every other, n being the number of choices.
"""

from __future__ import annotations

from align_dsl.types import Scenario, Votes


def contrast(votes: Votes, against: Votes, scenario: Scenario) -> dict[str, float]:
    """Shares of the votes, shifted so that the least is nearly 0, as published."""
    n = len(scenario.choices)
    total = {c.id: 0.0 for c in scenario.choices}
    for vote in votes:
        total[vote.choice] += 1
    for vote in against:
        for choice in total:
            total[choice] += -1 / n if choice == vote.choice else 1 / n
    least = min(total.values(), default=0.0)
    shifted = {c: v - least + 1e-6 for c, v in total.items()}
    whole = sum(shifted.values())
    return {c: round(v / whole, 6) for c, v in shifted.items()}
