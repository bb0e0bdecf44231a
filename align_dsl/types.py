"""The nouns of the domain. Frozen, serialisable, and ignorant of models, files and YAML.

What is ever written to a file, or by a person, is a `Value`. Numbers about attributes live on
0..1 everywhere inside (targets, labels, ratings); an attribute's `Scale` is only how people and
models write them down.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    """Base of every noun: frozen, closed, with a canonical form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> str:
        """JSON with sorted keys: equal values have equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)

    def digest(self) -> str:
        return digest(self.canonical())


def digest(text: str) -> str:
    """A short content hash; 24 hex digits are enough for a billion of anything here."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Scale(Value):
    """The numbers an attribute is written with, by people in labels and by models in answers."""

    low: float = 0
    high: float = 10
    step: float = 1

    def unit(self, raw: float) -> float:
        """Map a written number onto 0..1.

        >>> Scale(low=0, high=10).unit(7)
        0.7
        """
        return (raw - self.low) / (self.high - self.low)

    def written(self, unit: float) -> float:
        """The number on the scale nearest to a value in 0..1 (ties go to the even step).

        >>> Scale(low=0, high=4).written(0.6)
        2.0
        """
        steps = round(unit * (self.high - self.low) / self.step)
        return min(self.high, self.low + steps * self.step)

    def has(self, unit: float) -> bool:
        """Whether a value in 0..1 is a number of the scale.

        >>> Scale(low=1, high=5).has(0.5), Scale(low=1, high=5).has(0.7)
        (True, False)
        """
        return abs(self.unit(self.written(unit)) - unit) < 1e-9

    @property
    def whole(self) -> bool:
        """Whether every number on the scale is a whole number."""
        return all(float(x).is_integer() for x in (self.low, self.high, self.step))


class Attribute(Value):
    """A human value (or quality, or group) on which choices differ, such as moral desert."""

    name: str
    title: str
    about: str
    high: str
    low: str
    kind: Literal["value", "quality", "group"] = "value"
    aliases: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    scale: Scale = Scale()
    anchors: tuple[tuple[float, str], ...] = ()  # what a number looks like in words, ascending

    def told(self, scale: Scale | None = None, about: str | None = None) -> Attribute:
        """The same attribute on another scale, or in other words.

        Anchors move to the number that means the same there; where there is none they are dropped.
        """
        new = scale or self.scale
        moved = ((self.scale.unit(number), said) for number, said in self.anchors)
        anchors = self.anchors
        if new != self.scale:
            anchors = tuple((new.written(u), said) for u, said in moved if new.has(u))
        changes = {"scale": new, "about": about or self.about, "anchors": anchors}
        return self.model_copy(update=changes)


class Choice(Value):
    id: str
    text: str


class Scenario(Value):
    """One situation and the choices it offers: everything a model may see."""

    id: str
    text: str
    choices: tuple[Choice, ...]

    def content(self) -> str:
        """What is said, whoever says it: neither ids nor the order of the choices count."""
        return json.dumps([self.text, sorted(c.text for c in self.choices)], ensure_ascii=False)


Labels = dict[str, dict[str, float]]  # choice id -> attribute name -> 0..1


class Case(Value):
    """A scenario with its labels. Models never see labels, because no port carries a Case."""

    scenario: Scenario
    labels: Labels = Field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = Field(default_factory=dict)  # why a label is what it is
    group: str = ""  # cases of one group are never split between train and test

    def attributes(self) -> frozenset[str]:
        """The attributes on which at least one choice is labelled."""
        return frozenset(name for by in self.labels.values() for name in by)


class Target(Value):
    """Where a person (or population) stands on each attribute, 0..1."""

    name: str
    values: dict[str, float]
    weights: dict[str, float] = Field(default_factory=dict)  # unnamed attributes weigh 1


class Exemplar(Value):
    """A worked example that may be shown to a model: another case, with its labels in the open."""

    scenario: Scenario
    labels: Labels
    reasons: dict[str, dict[str, str]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pool:
    """The cases that exemplars are drawn from. Steps that pick them take it; models never do."""

    exemplars: tuple[Exemplar, ...] = ()

    def digest(self, attribute: str | None = None) -> str:
        """Content that an answer may depend on: the labels of one attribute, or all of them."""
        rows = [
            [
                e.scenario.content(),
                [
                    [
                        c.text,
                        e.labels.get(c.id, {}).get(attribute) if attribute else e.labels.get(c.id),
                    ]
                    for c in sorted(e.scenario.choices, key=lambda c: c.text)
                ],
            ]
            for e in self.exemplars
        ]
        said = sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)
        return digest("\n".join(said))


class Rating(Value):
    """How strongly one choice shows one attribute, 0..1, and why. Made by a model."""

    choice: str
    attribute: str
    value: float
    why: str = ""
    shown: str = ""  # the letter the choice stood under, which `why` may speak of


class Vote(Value):
    """One model's pick of one choice, and why."""

    choice: str
    why: str = ""
    shown: str = ""  # the letter the choice stood under, which `why` may speak of


Ratings = tuple[Rating, ...]
Votes = tuple[Vote, ...]
Exemplars = tuple[Exemplar, ...]
Attributes = tuple[Attribute, ...]


class Label(str):
    """What a model answers with when it picks: the letter a choice is shown under."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(str)


class LabelledNumbers(dict[str, float]):
    """What a model answers with when it rates together: letter -> number on the scale."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(dict[str, float])


class ScaleNumber(float):
    """What a model answers with when it rates one choice: a number on the attribute's scale."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(float)


class ScaleWeights(dict[float, float]):
    """How probable a model finds each number of the attribute's scale; adds up to 1."""

    @property
    def mean(self) -> float:
        return sum(number * weight for number, weight in self.items())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(dict[float, float])


Status = Literal["ok", "invalid", "truncated", "refused", "timeout", "unreachable", "tied"]
"""How a decision came out. `tied` is `ok` with several equally good choices and a seeded pick."""


class Failure(Value):
    """A job that failed. Not an exception: it is kept in the record, with what the model said."""

    status: Literal["invalid", "truncated", "refused", "timeout", "unreachable"]
    message: str
    raw: str = ""

    @property
    def is_passing(self) -> bool:
        """Whether it says nothing of the question: asked again, it may well be answered."""
        return self.status in ("timeout", "unreachable")


class Decision(Value):
    """What a decider chose for one scenario and one target, and everything it rests on."""

    decider: str
    model: str
    target: str
    scenario: str
    status: Status
    choice: str | None = None
    weights: dict[str, float] = Field(default_factory=dict)
    ratings: Ratings = ()
    votes: Votes = ()
    failures: tuple[Failure, ...] = ()

    @property
    def why(self) -> str:
        """The first reason given for the chosen choice, or why there is none."""
        reasons = [r.why for r in self.ratings if r.choice == self.choice and r.why]
        reasons += [v.why for v in self.votes if v.choice == self.choice and v.why]
        return reasons[0] if reasons else "; ".join(f.message for f in self.failures)


class Score(Value):
    """What a metric says of the decisions for one target, with its denominators in the open.

    Not a rating: a rating is made by a model, a score against labels.
    """

    metric: str
    value: float | None  # None where there is nothing to score, never 0 or NaN
    low: float | None = None
    high: float | None = None
    n: int = 0  # cases scored
    left_out: int = 0  # cases where labels cannot tell right from wrong
    failed: int = 0  # decisions that never came
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a plug-in's parameter, both included: `shots: Annotated[int, Range(0, 64)]`."""

    low: float
    high: float


AttributeWeights = dict[str, float]
"""The type of a parameter that says how much an attribute counts; those it lacks count 1."""

Prompt = str
"""The type of a parameter that holds prompt text, with fields such as `{attribute}`."""
