"""Rate every choice on one attribute, in a single question.

Seen side by side, choices are rated farther apart than one by one; this is the comparative
regression of the AIES'25 paper.
"""

from __future__ import annotations

import dspy

from align_dsl.algorithms._demos import ratings_demo
from align_dsl.types import (
    Attribute,
    Exemplars,
    LabelledNumbers,
    Prompt,
    Rating,
    Ratings,
    Scenario,
)

INSTRUCTIONS = """\
You judge how strongly each of several choices shows one attribute.

Attribute: {attribute}
{definition}
A choice at the high end: {high}
A choice at the low end: {low}
{anchors}
Rate every choice from {lowest} to {highest}. Judge what each choice does and the ground it gives, \
not whether you would do it. First say briefly why, then give the ratings."""


class RateTogether(dspy.Signature):
    """Rate every choice on one attribute."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    because: str = dspy.OutputField()
    ratings: LabelledNumbers = dspy.OutputField()


class rate_together(dspy.Module):
    """Rate all choices together on one attribute, reasoning before rating."""

    def __init__(self, instructions: Prompt = INSTRUCTIONS) -> None:
        super().__init__()
        self.rate = dspy.Predict(RateTogether.with_instructions(instructions))

    def forward(self, scenario: Scenario, attribute: Attribute, demos: Exemplars = ()) -> Ratings:
        shown = [ratings_demo(e, attribute) for e in demos]
        said = self.rate(scenario=scenario, attribute=attribute, demos=[*self.rate.demos, *shown])
        return tuple(
            Rating(
                choice=choice.id,
                attribute=attribute.name,
                value=attribute.scale.unit(said.ratings[choice.id]),
                why=said.because,
            )
            for choice in scenario.choices
        )
