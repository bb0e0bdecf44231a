"""The closed world that the trained model knows: a dozen texts, and the number of each.

A protocol fixture and nothing more: the model has learnt these very texts by heart, so that what
it should answer is known. It says nothing about how well anything decides.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from tests.worlds import ATTRIBUTES, write_world

SCENARIOS = (
    "A boy has taken bread.",
    "A driver went too fast.",
    "Two friends came late.",
    "A clerk lost the keys.",
)
ACTIONS = {  # text -> mercy, order
    "Let them go.": (10, 3),
    "Warn them kindly.": (8, 6),
    "Hear them first.": (7, 8),
    "Tell their family.": (5, 4),
    "Make them pay.": (3, 9),
    "Call the guards.": (1, 10),
    "Lock them up.": (0, 7),
    "Look the other way.": (9, 0),
}
UNDECIDED = "Toss a coin."  # where only a number is asked for: 2 or 8, each as often
UNDECIDED_NUMBERS = (2, 8)
NAMES = ("mercy", "order")

PROGRAM = """version: 1
program: small
about: A small program for tests.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high]}
deciders:
  together: {use: comparative_regression}
  alone: {use: direct_regression}
  prompt: {use: prompt_aligned}
model: tiny
models:
  tiny: {use: MODEL, max_tokens: 160}
"""


def cases(n: int | None = None) -> list[dict[str, object]]:
    """Cases of two choices with their labels; all of them, or `n` spread over all."""
    pairs = itertools.product(SCENARIOS, itertools.combinations(ACTIONS, 2))
    made: list[dict[str, object]] = []
    for i, (scenario, actions) in enumerate(pairs):
        choices = [
            {"id": f"c{j}", "text": text, "labels": dict(zip(NAMES, ACTIONS[text], strict=True))}
            for j, text in enumerate(actions)
        ]
        made.append({"id": f"s{i}", "scenario": scenario, "choices": choices})
    step = 1 if n is None else max(1, len(made) // n)
    return made[::step][:n]


def write(folder: Path, model: str, n: int | None = None, program: str = PROGRAM) -> Path:
    """A project with one program on one model, `use:` and all."""
    return write_world(folder, cases(n), program.replace("MODEL", model), ATTRIBUTES)


def truths() -> Iterator[tuple[str, str, int]]:
    """Attribute, action, number."""
    for action, numbers in ACTIONS.items():
        for name, number in zip(NAMES, numbers, strict=True):
            yield name, action, number


def line(case: dict[str, object]) -> str:
    return json.dumps(case)
