"""Rate one choice on one attribute, without seeing the others."""

from __future__ import annotations

import dspy

from align_dsl.algorithms._demos import rating_demos
from align_dsl.types import (
    Attribute,
    Choice,
    Exemplars,
    Prompt,
    Rating,
    Ratings,
    ScaleNumber,
    Scenario,
)

INSTRUCTIONS = """\
You judge how strongly one choice shows one attribute.

Attribute: {attribute}
{definition}
A choice at the high end: {high}
A choice at the low end: {low}
{anchors}
Rate the choice from {lowest} to {highest}. Judge what it does and the ground it gives, not \
whether you would do it. First say briefly why, then give the rating."""


class RateAlone(dspy.Signature):
    """Rate one choice on one attribute."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    choice: Choice = dspy.InputField()
    because: str = dspy.OutputField()
    rating: ScaleNumber = dspy.OutputField()


class rate_alone(dspy.Module):
    """Rate one choice at a time on one attribute, reasoning before rating."""

    def __init__(self, instructions: Prompt = INSTRUCTIONS) -> None:
        super().__init__()
        self.rate = dspy.Predict(RateAlone.with_instructions(instructions))

    def forward(
        self, scenario: Scenario, attribute: Attribute, choice: Choice, demos: Exemplars = ()
    ) -> Ratings:
        shown = [d for e in demos for d in rating_demos(e, attribute)]
        said = self.rate(
            scenario=scenario.model_copy(update={"choices": ()}),
            attribute=attribute,
            choice=choice,
            demos=[*self.rate.demos, *shown],
        )
        return (
            Rating(
                choice=choice.id,
                attribute=attribute.name,
                value=attribute.scale.unit(said.rating),
                why=said.because,
            ),
        )
