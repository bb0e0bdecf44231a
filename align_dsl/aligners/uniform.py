"""Prefer nothing: every choice weighs the same, and the seed decides."""

from __future__ import annotations

from align_dsl.types import Scenario


def uniform(scenario: Scenario) -> dict[str, float]:
    """The same weight for every choice."""
    return {c.id: 1 / len(scenario.choices) for c in scenario.choices}
