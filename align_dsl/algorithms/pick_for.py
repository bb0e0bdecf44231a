"""Pick the choice that somebody with the target's values would make.

The target becomes words for every value it can have: there are no gaps in which an attribute
silently drops out of the prompt.
"""

from __future__ import annotations

import dspy

from align_dsl.algorithms._demos import pick_demo
from align_dsl.types import (
    Attributes,
    Exemplars,
    Label,
    Prompt,
    Scenario,
    Target,
    Vote,
    Votes,
)

INSTRUCTIONS = """\
You decide as a particular person would. This is where that person stands:

{stance}

You are given a situation and several choices. Pick the choice that this person would make, \
whatever you would do yourself and whatever its place in the list. First say why in a few \
sentences, then give its letter."""


class PickFor(dspy.Signature):
    """Pick the choice that fits the target."""

    scenario: Scenario = dspy.InputField()
    target: Target = dspy.InputField()
    attributes: Attributes = dspy.InputField()
    because: str = dspy.OutputField()
    choice: Label = dspy.OutputField()


class pick_for(dspy.Module):
    """Pick the choice that fits the target, or with `opposite` the one that fits its opposite."""

    def __init__(self, instructions: Prompt = INSTRUCTIONS, opposite: bool = False) -> None:
        super().__init__()
        self.pick = dspy.Predict(PickFor.with_instructions(instructions))
        self.opposite = opposite

    def forward(
        self,
        scenario: Scenario,
        target: Target,
        attributes: Attributes,
        demos: Exemplars = (),
    ) -> Votes:
        aim = _opposite(target) if self.opposite else target
        shown = [d for e in demos if (d := pick_demo(e, aim, attributes))]
        said = self.pick(
            scenario=scenario,
            target=aim,
            attributes=attributes,
            demos=[*self.pick.demos, *shown],
        )
        return (Vote(choice=said.choice, why=said.because),) if said.choice else ()


def _opposite(target: Target) -> Target:
    return target.model_copy(update={"values": {n: 1 - v for n, v in target.values.items()}})
