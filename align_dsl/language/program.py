"""The intermediate representation: a program with every name resolved and every wire typed."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from align_dsl.language.signature import Signature
from align_dsl.types import Attribute, Exemplar, Scale, Target, Value, digest

Order = Literal["given", "shuffle", "both", "all"]
Part = Literal["all", "train", "test"]


class DemoAnswer(Value):
    """What a worked example answers, choices going by their ids."""

    because: str = ""
    ratings: dict[str, float] | None = None
    rating: float | None = None
    choice: str | None = None


class Demo(Value):
    """A worked example of a step: a case, what is asked of it, and the answer.

    Without an answer the labels of the case give it. `of` and `about` are no part of what is
    written, nor of a digest: they are put in when the data has been read.
    """

    case: str
    attribute: str | None = None
    target: dict[str, float] | None = None
    choice: str | None = None  # the one that is asked about
    choices: tuple[str, ...] | None = None  # those that are shown, in order
    answer: DemoAnswer | None = None
    of: Exemplar | None = Field(None, exclude=True)
    about: tuple[Attribute, ...] = Field((), exclude=True)


class Step(Value):
    """One algorithm, wired. `takes` maps each port to an earlier step or to an ambient value."""

    name: str
    algorithm: Signature
    each: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    takes: dict[str, str]
    samples: int = 1
    order: Order = "shuffle"
    temperature: float | None = None  # None: the model's
    scale: Scale | None = None  # None: each attribute's own
    definitions: dict[str, str] = Field(default_factory=dict)  # attribute -> other words for it
    demos: tuple[Demo, ...] = ()
    params: dict[str, Any] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _as_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what a step may say and mostly does not: so that digests stay as they are."""
        said: dict[str, Any] = dump(self)
        return {k: v for k, v in said.items() if k not in SELDOM or v not in (None, {}, (), [])}

    def warmth(self, model: Model) -> float:
        """At what temperature this step asks a model."""
        return model.temperature if self.temperature is None else self.temperature

    def sees(self, attribute: Attribute) -> Attribute:
        """An attribute as this step is told of it."""
        return attribute.told(self.scale, self.definitions.get(attribute.name))


SELDOM = ("temperature", "scale", "definitions", "demos")


class Decide(Value):
    """How the answers of steps become a weight for each choice."""

    aligner: Signature
    takes: dict[str, str]
    params: dict[str, Any] = Field(default_factory=dict)


class Decider(Value):
    """A way of deciding, with nothing left open."""

    name: str
    about: str
    steps: tuple[Step, ...]
    decide: Decide
    params: dict[str, Any] = Field(default_factory=dict)
    model: str | None = None  # where it differs from the program's

    def step(self, name: str) -> Step:
        return next(s for s in self.steps if s.name == name)

    def takes_target(self, step: Step) -> bool:
        """Whether a step, or anything it builds on, asks for the target."""
        origins = set(step.takes.values())
        earlier = (self.step(o) for o in origins if o not in AMBIENT)
        return bool(origins & {"target", "attributes"}) or any(map(self.takes_target, earlier))


AMBIENT = {
    "scenario": "Scenario",
    "attribute": "Attribute",
    "choice": "Choice",
    "target": "Target",
    "attributes": "Attributes",  # those that the target names
    "pool": "Pool",
    "labels": "Labels",
}
"""What a question brings along: name -> type of the port. `attribute` and `choice` need `each`."""


class Place(Value):
    format: str
    path: str


class Split(Value):
    train: float
    test: float
    group: Literal["scenario", "group"] = "group"
    seed: int = 0


class Data(Value):
    place: Place
    cases: Part = "all"
    split: Split | None = None
    exemplars: Place | None = None


class Model(Value):
    """A model and how to talk to it. `backend` names a door; `address` means something to it."""

    name: str
    backend: str
    address: str
    endpoint: str | tuple[str, ...] | None = None  # several serve the same model, and share work
    key: str | None = None  # the name of an environment variable, never the key
    temperature: float = 0
    max_tokens: int = 512
    context: int | None = None
    timeout: float = 120
    retries: int = 2
    concurrency: int = 16
    keep_alive: str | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Those that are written down; none means the provider's own."""
        written = self.endpoint or ()
        return (written,) if isinstance(written, str) else written

    def identity(self) -> str:
        """What an answer depends on. How long to wait and how often to retry is not part of it."""
        leave_out = {"name", "key", "timeout", "retries", "concurrency", "keep_alive"}
        return self.model_copy(update={}).model_dump_json(exclude=leave_out)


class Vary(Value):
    """The values that one setting may have: some, or all of a range."""

    values: tuple[Any, ...] | None = None
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False


class Propose(Value):
    """Who words instructions anew."""

    model: str
    count: int = 6


TOLERATED = 0.05  # accuracy that may be lost for a lower cost, where the file says nothing


class Optimize(Value):
    decider: str
    method: Literal["search", "bootstrap", "mipro", "gepa"] = "search"
    space: dict[str, Vary] = Field(default_factory=dict)  # empty: read off the decider
    variants: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    propose: Propose | None = None
    objectives: tuple[Literal["accuracy", "calls", "tokens"], ...] = ("accuracy",)
    at_most: dict[Literal["calls", "tokens"], float] = Field(default_factory=dict)
    tolerance: float = TOLERATED
    sampler: str = "tpe"
    trials: int = 60
    cases: Part = "train"
    accept: Part = "test"
    seed: int = 0

    @model_serializer(mode="wrap")
    def _as_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a usual tolerance: so that digests stay as they were before there was one."""
        said: dict[str, Any] = dump(self)
        return {k: v for k, v in said.items() if k != "tolerance" or v != TOLERATED}


class Program(Value):
    """A checked program, ready to plan."""

    name: str
    about: str
    attributes: tuple[Attribute, ...]
    data: Data
    targets: tuple[Target, ...]
    deciders: tuple[Decider, ...]
    models: tuple[Model, ...]  # every model that some decider uses, or that writes
    run_on: tuple[str, ...]  # the program's own models, by name
    metrics: tuple[str, ...]
    optimize: Optimize | None = None
    seed: int = 0

    def digest(self) -> str:
        """What the program says, wherever its files lie."""
        said = self.model_dump(mode="json")
        for place in (said["data"]["place"], said["data"]["exemplars"]):
            if place:
                place["path"] = PurePath(place["path"]).name
        return digest(json.dumps(said, sort_keys=True, ensure_ascii=False))

    def attribute(self, name: str) -> Attribute:
        return next(a for a in self.attributes if a.name == name)

    def model(self, name: str) -> Model:
        return next(m for m in self.models if m.name == name)

    def pairs(self) -> tuple[tuple[Decider, Model], ...]:
        """Every decider with every model it is to run on."""
        return tuple(
            (d, self.model(m))
            for d in self.deciders
            for m in ([d.model] if d.model else self.run_on)
        )
