"""Rate a choice by its length. Needs no model."""

from __future__ import annotations

from typing import Annotated

import dspy

from align_dsl.types import Attribute, Range, Rating, Ratings, Scenario


class rate_by_length(dspy.Module):
    """The more words a choice has, the higher it is rated, up to `full` words."""

    calls = 0

    def __init__(self, full: Annotated[int, Range(1, 1000)] = 20) -> None:
        super().__init__()
        self.full = full

    def forward(self, scenario: Scenario, attribute: Attribute) -> Ratings:
        return tuple(
            Rating(
                choice=c.id,
                attribute=attribute.name,
                value=min(1.0, len(c.text.split()) / self.full),
                why=f"{len(c.text.split())} words",
            )
            for c in scenario.choices
        )
