"""Rate every choice on one attribute, in a single question.

Seen side by side, choices are rated farther apart than one by one; this is the comparative
regression of the AIES'25 paper.
"""

from __future__ import annotations

from typing import Literal

import dspy

from align_dsl.algorithms._demos import ratings_demo, weighing_demos
from align_dsl.types import (
    Attribute,
    Exemplars,
    LabelledNumbers,
    Prompt,
    Rating,
    Ratings,
    ScaleWeights,
    Scenario,
)

INSTRUCTIONS = """\
You judge how strongly each of several choices shows one attribute.

Attribute: {attribute}
{definition}

The scale runs from {lowest} (low end) to {highest} (high end).
Low end: {low}
High end: {high}
{anchors}
Rate every choice on this scale. Judge each by what it says and does, and by nothing \
else: not by whether you would choose it, nor by its place in the list. First say why in a few \
sentences, naming the choices by their letters, then give the ratings."""
FIRST_WHY = (
    " First say why in a few sentences, naming the choices by their letters, then give the ratings."
)


class RateTogether(dspy.Signature):
    """Rate every choice on one attribute."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    because: str = dspy.OutputField()
    ratings: LabelledNumbers = dspy.OutputField()


class WeighOneOfSeveral(dspy.Signature):
    """How probable each number of the scale is as the rating of one choice among several."""

    scenario: Scenario = dspy.InputField()
    attribute: Attribute = dspy.InputField()
    rate: str = dspy.InputField()
    rating: ScaleWeights = dspy.OutputField()


class rate_together(dspy.Module):
    """Rate all choices together on one attribute, reasoning before rating.

    With `rating: expected` nothing is reasoned, and each choice has a question of its own, beside
    the others: it is the mean of the numbers of the scale, each as probable as the model finds it.
    `sampled` is `verbal`, said of a mean of several samples.
    """

    def __init__(
        self,
        instructions: Prompt = INSTRUCTIONS,
        rating: Literal["verbal", "sampled", "expected"] = "verbal",
    ) -> None:
        super().__init__()
        self.expected = rating == "expected"
        asked = WeighOneOfSeveral if self.expected else RateTogether
        said = instructions.replace(FIRST_WHY, "") if self.expected else instructions
        self.rate = dspy.Predict(asked.with_instructions(said))

    def forward(self, scenario: Scenario, attribute: Attribute, demos: Exemplars = ()) -> Ratings:
        if self.expected:
            return self._weighed(scenario, attribute, demos)
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

    def _weighed(self, scenario: Scenario, attribute: Attribute, demos: Exemplars) -> Ratings:
        shown = [*self.rate.demos, *(d for e in demos for d in weighing_demos(e, attribute))]
        ratings = []
        for choice in scenario.choices:  # what differs stands last, so that servers can reuse
            said = self.rate(scenario=scenario, attribute=attribute, rate=choice.id, demos=shown)
            value = attribute.scale.unit(said.rating.mean)
            ratings.append(Rating(choice=choice.id, attribute=attribute.name, value=value))
        return tuple(ratings)
