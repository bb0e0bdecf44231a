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
    names = sorted(target.values)
    counts = [target.weights.get(n, 1.0) * (weights or {}).get(n, 1.0) for n in names]
    far = {
        c.id: _distance(
            [abs(mean[c.id, n] - target.values[n]) for n in names],
            counts,
            norm,
        )
        for c in scenario.choices
        if all((c.id, n) in mean for n in names)
    }
    if not far:
        return {c.id: 0.0 for c in scenario.choices}
    best = min(far.values())
    winners = {c for c, d in far.items() if d <= best + 1e-9}
    return {c.id: 1 / len(winners) if c.id in winners else 0.0 for c in scenario.choices}


def _distance(gaps: list[float], weights: list[float], norm: str) -> float:
    if norm == "l1":
        return float(sum(w * g for w, g in zip(weights, gaps, strict=True)))
    return float(sum(w * g * g for w, g in zip(weights, gaps, strict=True)) ** 0.5)
