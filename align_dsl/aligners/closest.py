"""Prefer the choice whose ratings lie closest to the target."""

from __future__ import annotations

from typing import Literal

from align_dsl.types import AttributeWeights, Ratings, Scenario, Target


def closest(
    ratings: Ratings,
    target: Target,
    scenario: Scenario,
    *,
    norm: Literal["l2", "l1"] = "l2",
    weights: AttributeWeights | None = None,
) -> dict[str, float]:
    """All weight on the choice nearest to the target; a tie shares it.

    `weights` say how much an attribute counts, beside what the target itself says of that.
    Several ratings of one choice on one attribute count as their mean. A choice that lacks a
    rating on an attribute of the target cannot be placed and gets no weight.
    """
    seen: dict[tuple[str, str], list[float]] = {}
    for r in ratings:
        seen.setdefault((r.choice, r.attribute), []).append(r.value)
    mean = {at: sum(sorted(values)) / len(values) for at, values in seen.items()}
    aims = [
        (name, value, target.weights.get(name, 1.0) * (weights or {}).get(name, 1.0))
        for name, value in sorted(target.values.items())
    ]
    far: dict[str, float] = {}
    for c in scenario.choices:
        total = 0.0
        for name, value, counts in aims:
            if (c.id, name) not in mean:
                break
            gap = abs(mean[c.id, name] - value)
            total += counts * (gap if norm == "l1" else gap * gap)
        else:
            far[c.id] = total if norm == "l1" else total**0.5
    if not far:
        return {c.id: 0.0 for c in scenario.choices}
    best = min(far.values())
    winners = {c for c, d in far.items() if d <= best + 1e-9}
    return {c.id: 1 / len(winners) if c.id in winners else 0.0 for c in scenario.choices}
