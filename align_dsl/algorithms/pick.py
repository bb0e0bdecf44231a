"""Pick a choice with nobody's values in view: what a model does when it is not aligned."""

from __future__ import annotations

import dspy

from align_dsl.types import Label, Prompt, Scenario, Vote, Votes

INSTRUCTIONS = """\
You are given a situation and several choices. Pick the choice that you find best, \
whatever its place in the list. First say why in a few sentences, then give its letter."""


class Pick(dspy.Signature):
    """Pick the best choice."""

    scenario: Scenario = dspy.InputField()
    because: str = dspy.OutputField()
    choice: Label = dspy.OutputField()


class pick(dspy.Module):
    """Pick the best choice, unaligned, reasoning before the choice."""

    def __init__(self, instructions: Prompt = INSTRUCTIONS) -> None:
        super().__init__()
        self.pick = dspy.Predict(Pick.with_instructions(instructions))

    def forward(self, scenario: Scenario) -> Votes:
        said = self.pick(scenario=scenario)
        return (Vote(choice=said.choice, why=said.because),) if said.choice else ()
