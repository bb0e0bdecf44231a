"""What an optimizer of DSPy has made of a module -> settings of the decider, in our language.

New instructions become `STEP.instructions`, and demos `STEP.demos`: each names its case, so that
the program is one that people can read, and that decides without DSPy's own objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align_dsl.engine.lower import lower
from align_dsl.engine.module import choice_texts
from align_dsl.language.program import Decider, Step
from align_dsl.language.space import WORDING
from align_dsl.types import Attribute, Case, Choice, Label, ScaleWeights, Scenario, Target


@dataclass(slots=True)
class Lessons:
    """Settings of a decider, and what of the module could not be said in them."""

    settings: dict[str, Any] = field(default_factory=dict)
    unsaid: list[str] = field(default_factory=list)


def lessons(
    module: Any, decider: Decider, cases: Sequence[Case], targets: Iterable[Target]
) -> Lessons:
    """What differs from the decider as it is. `cases` are those that demos may be from."""
    found = Lessons()
    teller = _Teller(cases, tuple(targets), found)
    for step in decider.steps:
        predictors = module.steps[step.name].predictors()
        if not predictors:
            continue
        if len(predictors) > 1:
            said = f"`{step.name}` asks {len(predictors)} things, and a step has words for one"
            found.unsaid.append(said)
            continue
        (predictor,), (before,) = predictors, lower(step).predictors()
        wording = predictor.signature.instructions
        if wording != before.signature.instructions:
            if step.algorithm.param(WORDING) is None:
                found.unsaid.append(f"`{step.algorithm.name}` has no setting `{WORDING}`")
            else:
                found.settings[f"{step.name}.{WORDING}"] = wording
        if [dict(d) for d in predictor.demos] == [dict(d) for d in before.demos]:
            continue
        demos = teller.demos(step, predictor)
        if demos != _written(step):
            found.settings[f"{step.name}.demos"] = demos
    return found


def _written(step: Step) -> list[dict[str, Any]]:
    """The demos of a step as a file has them."""
    said = (d.model_dump(exclude_none=True) for d in step.demos)
    return [json.loads(json.dumps(one)) for one in said]


class _Teller:
    """Tells of demos in terms of the data."""

    def __init__(self, cases: Sequence[Case], targets: Sequence[Target], found: Lessons) -> None:
        self.targets, self.found = targets, found
        self.by_text: dict[str, list[Case]] = {}
        for case in cases:
            self.by_text.setdefault(_text(case.scenario.text), []).append(case)

    def demos(self, step: Step, predictor: Any) -> list[dict[str, Any]]:
        made: dict[str, dict[str, Any]] = {}
        for demo in predictor.demos:
            whole = isinstance(demo.get("scenario"), str) and "choices" in demo
            told = self._labelled(step, demo) if whole else self._answered(demo, predictor)
            if told is None:
                self.found.unsaid.append(f"a demo of `{step.name}` is from no case of the data")
            for one in told or ():
                made.setdefault(json.dumps(one, sort_keys=True), one)
        answered = [_question(one) for one in made.values() if "answer" in one]
        every = made.values()
        return [one for one in every if "answer" in one or _question(one) not in answered]

    def _case(self, text: str, choices: Iterable[str]) -> Case | None:
        """The case with this text that offers all of these choices."""
        wanted = set(choices)
        for case in self.by_text.get(_text(text), ()):
            if wanted <= {c.text for c in case.scenario.choices}:
                return case
        return None

    def _labelled(self, step: Step, demo: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """A training example as it is: its labels are the answers."""
        texts = dict(choice_texts(demo["choices"]))
        case = self._case(demo["scenario"], texts.values())
        if case is None:
            return None
        labelled, name = case.attributes(), case.scenario.id
        if "attribute" in step.each:
            asked = dict.fromkeys(n for t in self.targets for n in t.values if n in labelled)
            return [{"case": name, "attribute": n} for n in asked if _says(step, n)]
        if "target" in step.takes.values():
            plain = [t for t in self.targets if not t.weights]
            told = [t.values for t in plain if t.values.keys() <= labelled]
            if step.params.get("opposite"):  # it is told the opposite
                told = [{n: 1 - v for n, v in values.items()} for values in told]
            return [{"case": name, "target": dict(values)} for values in told]
        return [{"case": name, "answer": {"choice": demo["choice"]}}]

    def _answered(self, demo: Mapping[str, Any], predictor: Any) -> list[dict[str, Any]] | None:
        """A question that was answered well."""
        values = {n: demo[n] for n in predictor.signature.fields if n in demo}
        scenario = next((v for v in values.values() if isinstance(v, Scenario)), None)
        single = next((v for v in values.values() if isinstance(v, Choice)), None)
        if scenario is None:
            return None
        shown = scenario.choices or ((single,) if single else ())
        case = self._case(scenario.text, [c.text for c in shown])
        if case is None:
            return None
        ids = {c.text: c.id for c in case.scenario.choices}
        by_letter = {c.id: ids[c.text] for c in shown}
        told: dict[str, Any] = {"case": case.scenario.id}
        answer: dict[str, Any] = {}
        for name, value in values.items():
            match value:
                case Attribute():
                    told["attribute"] = value.name
                case Target(weights=weights) if weights:
                    return []  # a demo has no weights
                case Target():
                    told["target"] = dict(value.values)
                case Choice():
                    told["choice"] = ids[value.text]
                case Label():
                    answer["choice"] = by_letter[value]
                case Mapping() if name == "ratings":
                    answer["ratings"] = {by_letter[a]: _number(n) for a, n in value.items()}
                case _ if name == "rating":
                    # weights are shown as the number they come to, as the module shows them
                    number = (
                        round(value.mean) if isinstance(value, ScaleWeights) else _number(value)
                    )
                    one = values.get("rate")
                    if one is None:
                        answer["rating"] = number
                    else:
                        answer["ratings"] = {by_letter[one]: number}
                case str() if name == "choice":
                    answer["choice"] = by_letter[value]
                case str() if name != "rate" and value.strip():
                    answer["because"] = " ".join(value.split())
        if not answer.keys() - {"because"}:
            return []  # no pick was made
        if scenario.choices:
            told["choices"] = [ids[c.text] for c in scenario.choices]
        return [{**told, "answer": answer}]


def _question(told: Mapping[str, Any]) -> tuple[Any, ...]:
    return told["case"], told.get("attribute"), told.get("target")


def _says(step: Step, attribute: str) -> bool:
    return step.only is None or attribute in step.only


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def _text(text: str) -> str:
    return " ".join(text.split())
