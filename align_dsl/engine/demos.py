"""Worked examples of steps: which case they speak of, and what a model is shown of them.

`filled` puts in what the data says, `shown` makes of a demo what a question is asked with, and
`concerns` tells whether it is about that question. The text of a question is never shown as an
example of itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from align_dsl.algorithms._demos import pick_demo, rating_demos, ratings_demo, weighing_demos
from align_dsl.datasets import pool_of
from align_dsl.errors import PlanError
from align_dsl.language.program import Decider, Demo, Program, Step
from align_dsl.language.wording import letter
from align_dsl.types import (
    Attribute,
    Case,
    Choice,
    Exemplar,
    Label,
    LabelledNumbers,
    ScaleNumber,
    ScaleWeights,
    Scenario,
    Target,
    digest,
)


def filled(program: Program, cases: Sequence[Case]) -> Program:
    """The program with the cases that its demos speak of; a demo of none of these is left out.

    Of two cases with one name the first counts.
    """
    if not any(step.demos for decider in program.deciders for step in decider.steps):
        return program
    wanted = {d.case for one in program.deciders for s in one.steps for d in s.demos}
    found = [c for c in reversed(cases) if c.scenario.id in wanted]
    exemplars = {e.scenario.id: e for e in pool_of(found).exemplars}
    for case in found:  # an unlabelled one can be shown with an answer of its own
        exemplars.setdefault(case.scenario.id, Exemplar(scenario=case.scenario, labels={}))
    deciders = tuple(_filled(d, program, exemplars) for d in program.deciders)
    return program.model_copy(update={"deciders": deciders})


def _filled(decider: Decider, program: Program, exemplars: Mapping[str, Exemplar]) -> Decider:
    steps = []
    for step in decider.steps:
        demos = tuple(
            d.model_copy(update={"of": exemplars[d.case], "about": _about(d, step, program)})
            for d in step.demos
            if d.case in exemplars
        )
        steps.append(step.model_copy(update={"demos": demos}) if step.demos else step)
    return decider.model_copy(update={"steps": tuple(steps)})


def _about(demo: Demo, step: Step, program: Program) -> tuple[Attribute, ...]:
    names = [demo.attribute] if demo.attribute else list(demo.target or ())
    return tuple(step.sees(program.attribute(name)) for name in names)


def said(demos: Sequence[Demo], attribute: str | None) -> str:
    """What the demos that a job may be shown come to, for its key. Ids are no part of it."""
    parts = [_said(d) for d in demos if d.attribute in (None, attribute)]
    return digest(json.dumps(parts, ensure_ascii=False, sort_keys=True)) if parts else ""


def _said(demo: Demo) -> Any:
    assert demo.of is not None
    texts = {c.id: c.text for c in demo.of.scenario.choices}
    if demo.answer is None:
        answer = _by_text(demo.of, texts)
    else:
        ratings = (demo.answer.ratings or {}).items()
        answer = [demo.answer.because, demo.answer.rating, [(texts[i], n) for i, n in ratings]]
        answer.append(texts.get(demo.answer.choice or ""))
    return [
        demo.of.scenario.text,
        [texts[i] for i in _order(demo)],
        demo.attribute and demo.about[0].model_dump(mode="json", exclude={"name", "aliases"}),
        demo.target and sorted(demo.target.items()),
        demo.choice and texts[demo.choice],
        answer,
    ]


def _by_text(exemplar: Exemplar, texts: Mapping[str, str]) -> list[Any]:
    reasons = exemplar.reasons
    return [[texts[i], sorted(by.items()), reasons.get(i)] for i, by in exemplar.labels.items()]


def _order(demo: Demo) -> tuple[str, ...]:
    """The ids of the choices that are shown, in order."""
    assert demo.of is not None
    every = tuple(c.id for c in demo.of.scenario.choices)
    return demo.choices or every


def concerns(demo: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    """Whether a worked example is about what is asked, and of another text."""
    for name, value in inputs.items():
        other = demo.get(name)
        match value:
            case Attribute() if other is None or other.name != value.name:
                return False
            case Target() if other is None or _stands(other) != _stands(value):
                return False
            case Scenario() if other is None or other.text.split() == value.text.split():
                return False
    return True


def _stands(target: Target) -> tuple[dict[str, float], dict[str, float]]:
    return dict(target.values), dict(target.weights)


def once(demos: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each worked example once: what is written down may also be found among the exemplars."""
    kept: list[Mapping[str, Any]] = []
    for demo in demos:
        if demo not in kept:
            kept.append(demo)
    return kept


def shown(demo: Demo, signature: Any) -> list[dict[str, Any]]:
    """A demo as the fields of a predictor's signature: one or, choice by choice, several."""
    assert demo.of is not None
    if demo.answer is None:
        return by_labels(_narrowed(demo), signature, demo)
    texts = {c.id: c.text for c in demo.of.scenario.choices}
    letters = {i: letter(n) for n, i in enumerate(_order(demo))}
    choices = {i: Choice(id=a, text=texts[i]) for i, a in letters.items()}
    kinds = {name: field.annotation for name, field in signature.output_fields.items()}
    ratings = demo.answer.ratings or {}
    if demo.choices is None and ratings and LabelledNumbers in kinds.values():
        letters = {i: letter(n) for n, i in enumerate(i for i in _order(demo) if i in ratings)}
        choices = {i: Choice(id=a, text=texts[i]) for i, a in letters.items()}
    one: dict[str, Any] = {}
    alone = any(f.annotation is Choice for f in signature.input_fields.values())
    for name, field in signature.input_fields.items():
        if field.annotation is Scenario:
            offered = () if alone else tuple(choices.values())
            one[name] = Scenario(id="", text=demo.of.scenario.text, choices=offered)
        elif field.annotation is Attribute and demo.about:
            one[name] = demo.about[0]
        elif field.annotation is Target and demo.target is not None:
            one[name] = Target(name="", values=demo.target)
        elif field.annotation is Choice and demo.choice is not None:
            one[name] = choices[demo.choice]
        elif name == "attributes":
            one[name] = demo.about
        elif not (name == "rate" and ScaleWeights in kinds.values()):
            raise PlanError(f"a demo cannot say what `{signature.__name__}` takes as `{name}`")
    made = []
    numbers: list[tuple[str | None, float | None]] = [*ratings.items()]
    for rated, number in numbers or [(None, demo.answer.rating)]:
        each = dict(one)
        if "rate" in signature.input_fields and rated is not None:
            each["rate"] = letters[rated]
        for name, kind in kinds.items():
            if kind is str:
                each[name] = demo.answer.because
            elif kind is LabelledNumbers:
                each[name] = LabelledNumbers({letters[i]: n for i, n in ratings.items()})
            elif kind is Label and demo.answer.choice is not None:
                each[name] = letters[demo.answer.choice]
            elif kind in (ScaleNumber, ScaleWeights):
                each[name] = number
            else:
                raise PlanError(f"a demo cannot say what `{signature.__name__}` gives as `{name}`")
        made.append(each)
        if LabelledNumbers in kinds.values():
            break
    return made


def _narrowed(demo: Demo) -> Exemplar:
    """The exemplar with the choices that are to be shown, in their order."""
    assert demo.of is not None
    if demo.choices is None:
        return demo.of
    by_id = {c.id: c for c in demo.of.scenario.choices}
    kept = tuple(by_id[i] for i in demo.choices)
    scenario = demo.of.scenario.model_copy(update={"choices": kept})
    return demo.of.model_copy(update={"scenario": scenario})


def by_labels(exemplar: Exemplar, signature: Any, demo: Demo) -> list[dict[str, Any]]:
    """A worked example whose answer the labels give. None where they cannot tell."""
    kinds = {f.annotation for f in signature.output_fields.values()}
    if demo.target is not None:
        target = Target(name="", values=demo.target)
        one = pick_demo(exemplar, target, demo.about)
        return [one] if one else []
    (attribute,) = demo.about
    if not any(attribute.name in by for by in exemplar.labels.values()):
        return []
    if LabelledNumbers in kinds:
        return [ratings_demo(exemplar, attribute)]
    several = "choice" not in signature.input_fields
    made = (weighing_demos if several else rating_demos)(exemplar, attribute)
    if demo.choice is None:
        return made
    rated = {i for i, by in exemplar.labels.items() if attribute.name in by}
    ids = [c.id for c in exemplar.scenario.choices if c.id in rated]
    return [made[ids.index(demo.choice)]] if demo.choice in ids else []
