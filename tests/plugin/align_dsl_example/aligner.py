"""Share the weight by closeness, instead of giving all of it to the closest choice."""

from __future__ import annotations

from typing import Annotated

from align_dsl.types import Range, Ratings, Scenario, Target


def tilt(
    ratings: Ratings,
    target: Target,
    scenario: Scenario,
    *,
    sharpness: Annotated[float, Range(0, 100)] = 4.0,
) -> dict[str, float]:
    """Each choice weighs 1 / (1 + sharpness * its mean distance), scaled to add up to 1."""
    share = {}
    for choice in scenario.choices:
        gaps = sorted(
            abs(r.value - target.values[r.attribute])
            for r in ratings
            if r.choice == choice.id and r.attribute in target.values
        )
        mean = sum(gaps) / len(gaps) if gaps else 1.0
        share[choice.id] = 1 / (1 + sharpness * mean)
    whole = sum(sorted(share.values()))
    return {c: s / whole for c, s in share.items()}
