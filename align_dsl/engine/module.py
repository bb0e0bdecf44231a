"""A decider -> one `dspy.Module`: what stock DSPy optimizers and tools work on.

Its steps lie in a dict, because optimizers write attributes of their own on a module. It asks what
the engine would ask, step by step in the calling thread, so that DSPy sees every predictor in its
trace; and it remembers nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from pydantic import BaseModel, TypeAdapter

from align_dsl.algorithms._demos import pick_demo, rating_demos, ratings_demo, weighing_demos
from align_dsl.backends import Backend
from align_dsl.engine.adapter import TRAIL, NoAnswer, Trail, TypedAdapter
from align_dsl.engine.decide import decide_one
from align_dsl.engine.demos import concerns
from align_dsl.engine.lower import Taught, encode, lower
from align_dsl.engine.plan import Job, Plan
from align_dsl.engine.predict import Direct
from align_dsl.errors import PlanError
from align_dsl.language.program import Decider
from align_dsl.language.wording import letter
from align_dsl.records.record import Answer
from align_dsl.types import (
    Attribute,
    Choice,
    Exemplar,
    Failure,
    Label,
    LabelledNumbers,
    ScaleNumber,
    ScaleWeights,
    Scenario,
    Target,
)

NO_WORDS = (
    "`{model}` answers from exemplars and reads no instructions, so no wording can be better than "
    "another: optimizers that propose instructions need a language model "
    "(`load(..., model=...)`, or `dspy.configure(lm=...)`)"
)


@dataclass(slots=True)
class Setting:
    """What a decider is asked in. Shared by all copies of a module: backends cannot be copied."""

    decider: Decider
    model: str
    attributes: Mapping[str, Attribute]
    backend: Backend
    seed: int
    plan: Callable[[Any, Any, Any], Plan]  # scenario, choices, target -> the jobs of one question
    between: Callable[[Any], Any] = lambda adapter: adapter  # who stands before the adapter
    worded: Callable[[str, str], str] = lambda old, new: new  # what becomes of a new wording
    keeps_words: bool = False  # whoever optimizes proposes no wording, and sets only the old one

    def __deepcopy__(self, memo: object) -> Setting:
        return self

    def is_own(self, lm: Any) -> bool:
        """Whether an LM stands for the program's own model: it, or a copy that DSPy made of it."""
        own = self.backend.lm
        return lm is own or (
            type(lm) is type(own)
            and lm.model == own.model
            and type(getattr(lm, "engine", None)) is type(getattr(own, "engine", None))
        )

    def adapter(self, lm: Any) -> Any:
        return self.backend.adapter if self.is_own(lm) else TypedAdapter()

    def lm(self) -> Any:
        """What answers: the LM that the caller has configured, or the program's own."""
        return dspy.settings.lm or self.backend.lm

    def refuse_words(self, lm: Any) -> None:
        if not reads_words(self.adapter(lm)):
            raise PlanError(NO_WORDS.format(model=self.model))


def reads_words(adapter: Any) -> bool:
    """Whether a model that is asked so is told the instructions at all."""
    return isinstance(adapter, TypedAdapter) or bool(getattr(adapter, "reads_words", False))


class Predictor(dspy.Predict):
    """A predictor of a step. Where nobody reads instructions, none can be given to it.

    So an optimizer that proposes some is stopped by its first proposal, rather than left to
    measure differences that are none.
    """

    setting: Setting

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "signature" and "setting" in self.__dict__:
            now, new = self.signature.instructions, value.instructions
            if new != now or not self.setting.keeps_words:
                self.setting.refuse_words(self.lm or self.setting.lm())
            if new != now:
                value = value.with_instructions(self.setting.worded(now, new))
        super().__setattr__(name, value)

    def load_state(self, state: dict[str, Any], **options: Any) -> Any:
        if state["signature"]["instructions"] == self.signature.instructions:
            setting = self.__dict__.pop("setting")
            try:
                return super().load_state(state, **options)
            finally:
                self.setting = setting
        return super().load_state(state, **options)


class DeciderModule(dspy.Module):
    """Decides one scenario for one target.

    An LM that the caller has configured answers in place of the program's model. The answers are
    always asked for and read by align-dsl's own adapter, which keeps to schema and range.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.steps = {step.name: lower(step).deepcopy() for step in setting.decider.steps}
        for predictor in self.predictors():
            if type(predictor) in (dspy.Predict, Direct, Taught):
                predictor.__class__ = Predictor
                predictor.setting = setting

    def forward(self, scenario: Any, choices: Any = (), target: Any = None) -> dspy.Prediction:
        plan = self.setting.plan(scenario, choices, target)
        outputs: dict[str, Any] = {}
        answers: dict[str, Answer] = {}
        with dspy.context(
            lm=self.setting.lm(), adapter=FittingDemos(self.setting), disable_history=True
        ):
            for key, job in plan.jobs.items():
                outputs[key] = output = self._do(job, plan, outputs)
                failure = output if isinstance(output, Failure) else None
                said = None if failure else encode(output)
                answers[key] = Answer(key=key, output=said, failure=failure)
        decision = decide_one(plan.questions[0], answers, seed=self.setting.seed)
        return dspy.Prediction(
            choice=decision.choice,
            weights=decision.weights,
            ratings=decision.ratings,
            why=decision.why,
            status=decision.status,
            decision=decision,
        )

    def get_lm(self) -> Any:
        """Which LM the module is on; for optimizers that mean to write instructions for it."""
        lm = next((p.lm for p in self.predictors() if p.lm), None) or self.setting.lm()
        self.setting.refuse_words(lm)
        return lm

    def _do(self, job: Job, plan: Plan, outputs: Mapping[str, Any]) -> Any:
        """What a step says; a Failure where it, or one that it builds on, could not."""
        inputs: dict[str, Any] = {}
        for port, value in job.inputs.items():
            if isinstance(value, tuple) and all(isinstance(k, str) for k in value):
                below = [outputs[k] for k in value if k in plan.jobs]
                if failed := [o for o in below if isinstance(o, Failure)]:
                    return failed[0]
                value = below[0] if len(below) == 1 else tuple(x for o in below for x in o)
            inputs[port] = value
        token = TRAIL.set(Trail(seed=int(job.key[:7], 16)))
        try:
            return self.steps[job.step.name](**inputs)
        except NoAnswer as no:
            return no.failure
        finally:
            with contextlib.suppress(ValueError):
                TRAIL.reset(token)


class FittingDemos(dspy.Adapter):
    """Hands a question on with those demos that are about it, in the form of its exemplars.

    Optimizers give a predictor demos from anywhere: training examples of the whole decider, or
    answers about another attribute. Never shown is a demo with the text of the scenario itself.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Sequence[Mapping[str, Any]],
        inputs: dict[str, Any],
    ) -> Any:
        fitting = [f for d in demos for f in self._fitted(d, signature, inputs)]
        asked = self.setting.between(self.setting.adapter(lm))
        return asked(lm, lm_kwargs, signature, fitting, inputs)

    def _fitted(
        self, demo: Mapping[str, Any], signature: Any, inputs: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        names = [*signature.input_fields, *signature.output_fields]
        if isinstance(demo.get("scenario"), str) and "choices" in demo:
            shown = _worked(demo, signature, inputs)
        elif all(n in demo for n in names):
            shown = [{n: _typed(signature.fields[n].annotation, demo[n]) for n in names}]
            shown = [one for one in shown if None not in one.values()]  # no pick was made
        else:
            lacking = ", ".join(n for n in names if n not in demo)
            raise PlanError(f"a demo of `{signature.__name__}` lacks {lacking}")
        return [one for one in shown if concerns(one, inputs)]


def _typed(kind: Any, value: Any) -> Any:
    """A value as its type, also when it comes from a saved module."""
    if kind is ScaleWeights and isinstance(value, Mapping):  # shown as the number they come to
        return round(sum(float(number) * weight for number, weight in value.items()))
    plain = isinstance(value, dict | list) and not isinstance(value, BaseModel)
    return TypeAdapter(kind).validate_python(value) if plain else value


def _worked(
    example: Mapping[str, Any], signature: Any, inputs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A training example of the whole decider, as worked examples of one step's question."""
    texts = choice_texts(example["choices"])
    labels = example.get("labelled")
    kinds = {f.annotation for f in signature.output_fields.values()}
    attribute = next((v for v in inputs.values() if isinstance(v, Attribute)), None)
    target = next((v for v in inputs.values() if isinstance(v, Target)), None)
    if labels is None and (attribute is not None or target is not None):
        said = "these examples have no `labelled`, from which a step's answers could be told"
        raise PlanError(f"{said}; make them with `examples()` of the loaded program")
    exemplar = Exemplar(
        scenario=Scenario(
            id="", text=example["scenario"], choices=tuple(Choice(id=i, text=t) for i, t in texts)
        ),
        labels=labels or {},
    )
    if attribute is not None:
        if not any(attribute.name in by for by in exemplar.labels.values()):
            return []
        if LabelledNumbers in kinds:
            return [ratings_demo(exemplar, attribute)]
        if kinds & {ScaleNumber, ScaleWeights}:
            several = "choice" not in signature.input_fields
            return (weighing_demos if several else rating_demos)(exemplar, attribute)
    elif target is not None and Label in kinds:
        labelled = set.intersection(*(set(by) for by in exemplar.labels.values()))
        if not target.values.keys() <= labelled:
            return []
        demo = pick_demo(exemplar, target, inputs["attributes"])
        return [demo] if demo else []
    elif Label in kinds:
        letters = {i: letter(n) for n, (i, _) in enumerate(texts)}
        shown = tuple(Choice(id=letters[i], text=t) for i, t in texts)
        scenario = Scenario(id="", text=example["scenario"], choices=shown)
        return [{"scenario": scenario, "because": "", "choice": letters[example["choice"]]}]
    said = f"a training example of the whole decider says nothing that `{signature.__name__}` asks"
    raise PlanError(f"{said}; bootstrap its demos instead")


def choice_texts(choices: Any) -> list[tuple[str, str]]:
    """Ids and texts of choices; texts alone get letters for ids."""
    if isinstance(choices, Mapping):
        return [(str(i), t) for i, t in choices.items()]
    return [
        (c.id, c.text) if isinstance(c, Choice) else (letter(n), c) for n, c in enumerate(choices)
    ]
