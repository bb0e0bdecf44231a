"""An exam -> what DSPy's optimizers want of it: a module, examples, and who says what is right.

An example is a case for a target. Right is what the labels say: 1 or 0. A mean over attributes, as
results show it, cannot be told of one example; DSPy takes the mean over examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from align_dsl import pipeline
from align_dsl.backends import Backend
from align_dsl.datasets import pool_of
from align_dsl.engine.module import DeciderModule, Setting
from align_dsl.engine.plan import Plan, plan
from align_dsl.optimize.stock.memory import Memory, Remembering
from align_dsl.optimize.stock.wording import whole
from align_dsl.optimize.task import Ready
from align_dsl.types import Case, Target


class Pupil(DeciderModule):
    """The decider as DSPy has it. What goes wrong in it ends all, however DSPy takes it."""

    def __init__(self, setting: Setting, memory: Memory) -> None:
        super().__init__(setting)
        self.memory = memory

    def forward(self, scenario: Any, choices: Any = (), target: Any = None) -> dspy.Prediction:
        try:
            return super().forward(scenario, choices, target)
        except Exception as error:
            self.memory.broke = self.memory.broke or error
            raise


@dataclass(frozen=True, slots=True)
class Examples:
    """Those that DSPy learns from, and those that it holds what it has learnt against."""

    train: list[dspy.Example]
    val: list[dspy.Example]


def pupil(made: Ready, memory: Memory, *, keeps_words: bool) -> Pupil:
    """The decider's module. Its questions are planned as those of the exam are."""
    (backend,) = made.backends.values()
    model = made.model
    who = f"{model.identity()} {backend.fingerprint()} {pipeline.prompts_version()}"
    setting = Setting(
        decider=made.space.decider,
        model=model.name,
        attributes={a.name: a for a in made.loaded.program.attributes},
        backend=backend,
        seed=made.loaded.program.seed,
        plan=_plans(made, backend),
        between=lambda adapter: Remembering(adapter, memory, who, free=made.is_free),
        worded=whole,
        keeps_words=keeps_words,
    )
    return Pupil(setting, memory)


def _plans(made: Ready, backend: Backend) -> Callable[[Any, Any, Any], Plan]:
    """Plans one question. Exemplars come from other blocks than the case's own."""
    exam = made.train
    program = exam.space.program(exam.space.default)
    program = program.model_copy(update={"deciders": (made.space.decider,)})
    places = {_asked(c): (c, b) for b, block in enumerate(exam.blocks) for c in block}
    fingerprints = {name: b.fingerprint() for name, b in made.backends.items()}
    prompts = pipeline.prompts_version()
    known: dict[tuple[str, str], Plan] = {}

    def planned(scenario: str, choices: Mapping[str, str], target: Target) -> Plan:
        case, block = places[scenario, tuple(choices.items())]
        key = case.scenario.id, target.name
        if key not in known:
            bare = Case(scenario=case.scenario)
            known[key] = plan(
                program,
                [bare],
                [target],
                exam.pools[block],
                fingerprints=fingerprints,
                prompts=prompts,
            )
        return known[key]

    return planned


def _asked(case: Case) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What an example of a case brings along: its choices in the order in which demos have them."""
    (exemplar,) = pool_of([case.model_copy(update={"labels": case.labels or {"": {}}})]).exemplars
    return case.scenario.text, tuple((c.id, c.text) for c in exemplar.scenario.choices)


def examples(made: Ready, *, learns_from: float) -> Examples:
    """The train cases in two parts, whole groups to one; `learns_from` is the share of the first.

    With a share of 1, or too few groups for two parts, both are all of them.
    """
    exam, seed = made.train, made.optimize.seed
    blocks = [list(_of(made, block)) for block in exam.blocks]
    for block in blocks:
        random.Random(f"examples/{seed}").shuffle(block)
    n = max(1, round(learns_from * len(blocks)))
    first = [one for block in blocks[:n] for one in block]
    rest = [one for block in blocks[n:] for one in block]
    whole = [*first, *rest]
    return Examples(first, rest) if first and rest else Examples(whole, whole)


def _of(made: Ready, block: Sequence[Case]) -> Iterator[dspy.Example]:
    for case in block:
        for target in made.space.checked.program.targets:
            right = made.train.right.get((case.scenario.id, target.name))
            if right is None:
                continue
            text, choices = _asked(case)
            yield dspy.Example(
                scenario=text,
                choices=dict(choices),
                target=target,
                labelled=case.labels,
                choice=min(right),
                right=sorted(right),
            ).with_inputs("scenario", "choices", "target")


def correct(example: Any, said: Any, trace: Any = None) -> bool:
    """Whether the labels agree with the choice."""
    return said.choice in example.right


def told(example: Any, said: Any, *_: Any) -> dspy.Prediction:
    """The same, and in words, for an optimizer that reads them."""
    texts: dict[str, str] = example.choices
    labels = []
    for name in example.target.values:
        rated = [f'"{texts[i]}" {by[name]:.2g}' for i, by in example.labelled.items() if name in by]
        labels.append(f"{name}: {', '.join(rated)}")
    stands = ", ".join(f"{n} {v:g}" for n, v in example.target.values.items())
    chosen = f'"{texts[said.choice]}"' if said.choice in texts else f"none ({said.why})"
    wanted = " or ".join(f'"{texts[i]}"' for i in example.right)
    is_right = correct(example, said)
    feedback = (
        f"{'Right' if is_right else 'Wrong'}. The person stands at {stands}, from 0 (low end) to 1 "
        f"(high end). Chosen was {chosen}; nearest to the person is {wanted}. People rated the "
        f"choices, from 0 to 1: {'; '.join(labels)}."
    )
    return dspy.Prediction(score=float(is_right), feedback=feedback)
