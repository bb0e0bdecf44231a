"""Rate one choice on one attribute, without seeing the others."""

from __future__ import annotations

from typing import Literal

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
    ScaleWeights,
    Scenario,
)

INSTRUCTIONS = """\
You judge how strongly one choice shows one attribute.

Attribute: {attribute}
{definition}

The scale runs from {lowest} (low end) to {highest} (high end).
Low end: {low}
High end: {high}
{anchors}
Rate the choice on this scale. Judge it by what it says and does, and by nothing \
else: not by whether you would choose it. First say why in a few sentences, then give the rating."""
FIRST_WHY = " First say why in a few sentences, then give the rating."


class RateAlone(dspy.Signature):
    """Rate one choice on one attribute."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    choice: Choice = dspy.InputField()
    because: str = dspy.OutputField()
    rating: ScaleNumber = dspy.OutputField()


class WeighAlone(dspy.Signature):
    """How probable each number of the scale is as the rating of one choice."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    choice: Choice = dspy.InputField()
    rating: ScaleWeights = dspy.OutputField()


class rate_alone(dspy.Module):
    """Rate one choice at a time on one attribute, reasoning before rating.

    With `rating: expected` nothing is reasoned: it is the mean of the numbers of the scale, each
    as probable as the model finds it. `sampled` is `verbal`, said of a mean of several samples.
    """

    def __init__(
        self,
        instructions: Prompt = INSTRUCTIONS,
        rating: Literal["verbal", "sampled", "expected"] = "verbal",
    ) -> None:
        super().__init__()
        self.expected = rating == "expected"
        asked = WeighAlone if self.expected else RateAlone
        said = instructions.replace(FIRST_WHY, "") if self.expected else instructions
        self.rate = dspy.Predict(asked.with_instructions(said))

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
                value=attribute.scale.unit(said.rating.mean if self.expected else said.rating),
                why="" if self.expected else said.because,
            ),
        )
