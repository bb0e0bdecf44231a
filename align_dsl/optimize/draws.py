"""A program -> the same with other dice for the exemplars that it shows."""

from __future__ import annotations

from align_dsl.language.program import Program

DRAWS = 6  # of exemplars, where they are drawn at random and answers cost nothing


def redrawn(program: Program, draw: int) -> Program:
    """The program with other dice for the exemplars that it shows; itself where it rolls none."""
    (decider,) = program.deciders
    rolls = [s for s in decider.steps if s.params.get("select") == "random" and s.params.get("k")]
    if not draw or not rolls:
        return program
    steps = tuple(
        s.model_copy(update={"params": {**s.params, "seed": s.params["seed"] + draw}})
        if s in rolls
        else s
        for s in decider.steps
    )
    return program.model_copy(update={"deciders": (decider.model_copy(update={"steps": steps}),)})
