"""A DSPy adapter that asks once, holds the server to a schema, and reads the answer strictly.

It keeps what stock DSPy rebuilds for each call (schema and task text), never falls back to another
format, and never repairs an answer. One retry with the mistake shown to the model is made when the
model's `retries` allow it; it is counted. What cannot be read is raised as `NoAnswer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.lm15 import Config, Request, TextPart
from dspy.lm15 import Message as LmMessage

from align_dsl.engine.prompt import Invalid, Kind, Message, Shape, messages, parse, schema
from align_dsl.types import Attribute, Failure, Label, LabelledNumbers, ScaleNumber, Scenario

KINDS: dict[Any, Kind] = {
    str: "text",
    Label: "label",
    LabelledNumbers: "numbers",
    ScaleNumber: "number",
}


class NoAnswer(Exception):
    """A job that failed: carries the value that goes into the record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(slots=True)
class Trail:
    """What happened on the wire during one job. Kept by the job, filled in by adapter and engine."""

    seed: int | None = None
    calls: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    raw: str = ""
    constrained: str = ""
    failure: Failure | None = None
    asked: list[tuple[list[Message], dict[str, Any]]] = field(default_factory=list)


TRAIL: ContextVar[Trail | None] = ContextVar("align_dsl_trail", default=None)


class TypedAdapter(dspy.Adapter):  # type: ignore[misc]
    """Typed inputs in, typed outputs out. `ask_again` allows the one visible retry."""

    def __init__(self, ask_again: bool = True) -> None:
        super().__init__()
        self.ask_again = ask_again

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Sequence[Mapping[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        shape = shape_of(signature, inputs)
        said = messages(signature.instructions, shape, inputs, demos)
        trail = TRAIL.get() or Trail()
        try:
            return [self._ask(lm, shape, said, trail)]
        except Invalid as wrong:
            failure = Failure(status="invalid", message=str(wrong), raw=trail.raw)
            if not self.ask_again:
                raise NoAnswer(failure) from None
            trail.retries += 1
            again: list[Message] = [
                *said,
                {"role": "assistant", "content": trail.raw[:4000]},
                {"role": "user", "content": f"That cannot be used: {wrong}. Answer again."},
            ]
            try:
                return [self._ask(lm, shape, again, trail)]
            except Invalid as still:
                failure = Failure(status="invalid", message=str(still), raw=trail.raw)
                raise NoAnswer(failure) from None

    def _ask(self, lm: Any, shape: Shape, said: list[Message], trail: Trail) -> dict[str, Any]:
        trail.asked.append((said, schema(shape)))
        try:
            response = lm(request(lm.model, shape, said, trail.seed))
        except Exception as error:
            if trail.failure is not None:  # DSPy wraps what an engine raises
                raise NoAnswer(trail.failure) from None
            raise error
        text = response.message.text or ""
        trail.raw = text
        if response.finish_reason == "length":
            said_ = "the answer was cut off at the token limit"
            raise NoAnswer(Failure(status="truncated", message=said_, raw=text))
        return parse(shape, text)

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The messages alone, as DSPy's own tools ask for them."""
        return list(messages(signature.instructions, shape_of(signature, inputs), inputs, demos))


def request(model: str, shape: Shape, said: list[Message], seed: int | None) -> Any:
    first, *rest = said
    return Request(
        model=model,
        system=first["content"],
        messages=tuple(
            LmMessage(role=m["role"], parts=(TextPart(text=m["content"]),)) for m in rest
        ),
        config=Config(
            seed=seed,
            response_format={
                "type": "json_schema",
                "name": "answer",
                "strict": True,
                "schema": schema(shape),
            },
        ),
    )


def shape_of(signature: Any, inputs: Mapping[str, Any]) -> Shape:
    labels: tuple[str, ...] = ()
    scale = None
    for value in inputs.values():
        if isinstance(value, Scenario):
            labels = tuple(c.id for c in value.choices)
        elif isinstance(value, Attribute):
            scale = value.scale
    return Shape(_outputs(signature), labels, scale)


_known: dict[Any, tuple[tuple[str, Kind], ...]] = {}


def _outputs(signature: Any) -> tuple[tuple[str, Kind], ...]:
    if signature not in _known:
        fields = signature.output_fields.items()
        _known[signature] = tuple((name, KINDS.get(f.annotation, "json")) for name, f in fields)
    return _known[signature]
