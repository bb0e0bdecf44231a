"""Take the labels for ratings: what a perfect rater would say. Only the oracle uses it."""

from __future__ import annotations

import dspy

from align_dsl.types import Attribute, Labels, Rating, Ratings, Scenario


class read_labels(dspy.Module):
    """The labels themselves, as ratings. Needs no model, and no model sees them."""

    calls = 0

    def forward(self, scenario: Scenario, attribute: Attribute, labels: Labels) -> Ratings:
        return tuple(
            Rating(choice=c.id, attribute=attribute.name, value=labels[c.id][attribute.name])
            for c in scenario.choices
            if attribute.name in labels.get(c.id, {})
        )
