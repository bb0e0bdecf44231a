"""Answers from the exemplars of the job alone: words and least squares, no neural network.

It sits where DSPy's adapters sit: typed inputs and exemplars come in, typed outputs go out. No
prompt is written and none is read, so no text can hijack it and no wording can sway it. Without
exemplars it has no opinion: equal ratings, no pick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import dspy

from align_dsl.backends import _ridge
from align_dsl.backends._ridge import Example, Prediction
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.types import (
    Attribute,
    Choice,
    Label,
    LabelledNumbers,
    Scale,
    ScaleNumber,
    Scenario,
    Target,
    Value,
    digest,
)

SHOWN = 3  # exemplars named in a reason
QUOTED = 60  # characters of one
TIED = 1e-9
INSTEAD = "use a language model for it, such as `model: ollama_chat/llama3.2:3b`"

Demos = Sequence[Mapping[str, Any]]
V = TypeVar("V", bound=Value)


class embedded(dspy.Adapter):  # noqa: N801  (named as in YAML)
    """Kernel ridge regression over the exemplars, and their exact contributions as the reason."""

    note = "embedded: no LLM"
    concurrency = 1

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.lm = _NoLM("embedded")

    @property
    def adapter(self) -> embedded:
        return self

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Demos,
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        name, answer = _question(signature)
        value, because = answer(name, inputs, demos)
        said = {
            n: because for n, field in signature.output_fields.items() if field.annotation is str
        }
        return [{**said, name: value}]

    async def acall(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Demos,
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        return self(lm, lm_kwargs, signature, demos, inputs)

    def fingerprint(self) -> str:
        files = (Path(__file__), Path(_ridge.__file__))
        return digest("\n".join(f.read_text(encoding="utf-8") for f in files))

    def probe(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is open."""


class _NoLM(dspy.BaseLM):
    """DSPy wants to see an LM before it asks the adapter. This one is never asked."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise BackendError(f"the embedded backend has no language model to prompt; {INSTEAD}")

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        self(*args, **kwargs)

    forward = __call__
    aforward = acall


def _rate_together(name: str, inputs: Mapping[str, Any], demos: Demos) -> tuple[Any, str]:
    scenario = _need(Scenario, inputs)
    attribute = _need(Attribute, inputs)
    scale = attribute.scale
    examples = []
    for demo in _about(demos, inputs):
        shown, ratings = _find(Scenario, demo, inputs), demo.get(name)
        if shown and isinstance(ratings, Mapping):
            by_letter = {c.id: c.text for c in shown.choices}
            examples.append(
                tuple((by_letter[i], scale.unit(r)) for i, r in ratings.items() if i in by_letter)
            )
    choices = scenario.choices
    found = _ridge.predict(examples, [c.text for c in choices]) if len(choices) > 1 else None
    if found is None:
        middle = _written(0.5, scale)
        return LabelledNumbers({c.id: middle for c in choices}), _silent(examples)
    mean = _mean(examples)
    ratings = {c.id: _written(mean + p.offset, scale) for c, p in zip(choices, found, strict=True)}
    named = [(c.id, p) for c, p in zip(choices, found, strict=True)]
    return LabelledNumbers(ratings), _reason(named, len(examples), mean, scale)


def _rate_alone(name: str, inputs: Mapping[str, Any], demos: Demos) -> tuple[Any, str]:
    choice = _need(Choice, inputs)
    scale = _need(Attribute, inputs).scale
    examples: list[Example] = []
    for demo in _about(demos, inputs):
        shown, rating = _find(Choice, demo, inputs), demo.get(name)
        if shown and isinstance(rating, int | float):
            examples.append(((shown.text, scale.unit(rating)),))
    found = _ridge.predict(examples, [choice.text], together=False)
    if found is None:
        return ScaleNumber(_written(0.5, scale)), _silent(examples)
    mean = _mean(examples)
    number = ScaleNumber(_written(mean + found[0].offset, scale))
    return number, _reason([("this choice", found[0])], len(examples), mean, scale)


def _pick(name: str, inputs: Mapping[str, Any], demos: Demos) -> tuple[Any, str]:
    choices = _need(Scenario, inputs).choices
    examples: list[Example] = []
    for demo in _about(demos, inputs):
        shown, picked = _find(Scenario, demo, inputs), demo.get(name)
        if shown and any(c.id == picked for c in shown.choices):
            examples.append(tuple((c.text, float(c.id == picked)) for c in shown.choices))
    found = _ridge.predict(examples, [c.text for c in choices]) if len(choices) > 1 else None
    if found is None:
        return None, _silent(examples)
    named = [(c.id, p) for c, p in zip(choices, found, strict=True)]
    because = _reason(named, len(examples), 0.0, Scale(low=0, high=1))
    best = max(p.offset for p in found)
    winners = [letter for letter, p in named if p.offset > best - TIED]
    return (Label(winners[0]) if len(winners) == 1 else None), because


Answer = Callable[[str, Mapping[str, Any], Demos], tuple[Any, str]]
ANSWERS: dict[Any, Answer] = {
    LabelledNumbers: _rate_together,
    ScaleNumber: _rate_alone,
    Label: _pick,
}


def _question(signature: Any) -> tuple[str, Answer]:
    """The output field that is a rating or a pick, and how to answer it."""
    asked = []
    for name, field in signature.output_fields.items():
        if field.annotation in ANSWERS:
            asked.append((name, ANSWERS[field.annotation]))
        elif field.annotation is not str or name not in ("because", "reasoning"):
            said = f"the embedded backend can rate and pick, but not write `{name}`"
            raise BackendError(f"{said}; {INSTEAD}")
    if len(asked) != 1:
        said = "the embedded backend answers one rating or pick at a time"
        raise BackendError(f"{said}, and `{signature.__name__}` asks for {len(asked)}; {INSTEAD}")
    return asked[0]


def _about(demos: Demos, inputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The exemplars of this very question. Never one with the text of the case being decided."""
    own = _find(Scenario, inputs, inputs)
    attribute = _find(Attribute, inputs, inputs)
    target = _find(Target, inputs, inputs)
    kept = []
    for demo in demos:
        theirs = _find(Scenario, demo, inputs)
        if own and theirs and own.text.split() == theirs.text.split():
            continue
        on = _find(Attribute, demo, inputs)
        toward = _find(Target, demo, inputs)
        if (on and on.name) == (attribute and attribute.name) and (
            (toward and toward.values) == (target and target.values)
        ):
            kept.append(demo)
    return kept


def _find(kind: type[V], values: Mapping[str, Any], inputs: Mapping[str, Any]) -> V | None:
    """The value of a kind, under the name it has among the inputs."""
    name = next((n for n, v in inputs.items() if isinstance(v, kind)), None)
    value = values.get(name) if name else None
    if isinstance(value, dict):  # as DSPy saves demos
        try:
            return kind.model_validate(value)
        except ValueError:
            return None
    return value if isinstance(value, kind) else None


def _need(kind: type[V], inputs: Mapping[str, Any]) -> V:
    found = _find(kind, inputs, inputs)
    if found is None:
        said = f"the embedded backend needs a {kind.__name__} among the inputs"
        raise BackendError(f"{said}; {INSTEAD}")
    return found


def _mean(examples: Sequence[Example]) -> float:
    numbers = sorted(number for example in examples for _, number in example)
    return sum(numbers) / len(numbers)


def _written(unit: float, scale: Scale) -> float:
    """On the scale but between its steps: rounding to them would make ties."""
    inside = min(1.0, max(0.0, unit))
    return round(scale.low + inside * (scale.high - scale.low), 9)


def _silent(examples: Sequence[Example]) -> str:
    if not any(examples):
        return "No LLM, no opinion: needs exemplars."
    if all(len({number for _, number in example}) == 1 for example in examples if len(example) > 1):
        return "No LLM, no opinion: the exemplars make no difference between choices."
    return "No LLM, no opinion: no exemplar shares a word with what tells these choices apart."


def _reason(named: list[tuple[str, Prediction]], n: int, mean: float, scale: Scale) -> str:
    """The sums behind the highest and the lowest rating, in numbers of the scale."""
    ranked = sorted(named, key=lambda one: (-one[1].offset, one[0]))
    shown = ranked if len(ranked) < 2 else [ranked[0], ranked[-1]]
    sums = [_sum(name, prediction, mean, scale) for name, prediction in shown]
    return f"No LLM: words of {n} exemplar{'s' if n != 1 else ''}. {' '.join(sums)}"


def _sum(name: str, prediction: Prediction, mean: float, scale: Scale) -> str:
    span = scale.high - scale.low
    start, end = scale.low + mean * span, scale.low + (mean + prediction.offset) * span
    by_size = sorted(prediction.shares, key=lambda s: (-abs(s.amount), s.text, s.number))
    said = [f"{name}: {end:.2f} = {start:.2f}"]
    for share in by_size[:SHOWN]:
        label = f"{scale.low + share.number * span:.4g}"
        said.append(f'{share.amount * span:+.2f} "{_short(share.text)}" ({label})')
    if by_size[SHOWN:]:
        rest = sum(s.amount for s in by_size[SHOWN:])
        said.append(f"{rest * span:+.2f} others")
    return " ".join(said) + "."


def _short(text: str) -> str:
    words = " ".join(text[: 4 * QUOTED].split()).encode("utf-8", "replace").decode("utf-8")
    return words if len(words) <= QUOTED else words[: QUOTED - 1] + "…"
