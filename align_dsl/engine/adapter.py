"""A DSPy adapter that asks once, holds the server to a schema, and reads the answer strictly.

It keeps what stock DSPy rebuilds for each call (schema and task text), never falls back to another
format, and never repairs an answer. A job may send `retries` requests more than it has questions:
the same again where the server gave no answer, and once with the mistake shown to the model where
the answer cannot be used. Each is counted. What cannot be had or read is raised as `NoAnswer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from random import uniform
from typing import Any

import dspy
from dspy.lm15 import Config, Request, TextPart
from dspy.lm15 import Message as LmMessage

from align_dsl.engine.loop import pause
from align_dsl.engine.prompt import Invalid, Kind, Message, Shape, messages, parse, sayable, schema
from align_dsl.types import (
    Attribute,
    Failure,
    Label,
    LabelledNumbers,
    ScaleNumber,
    ScaleWeights,
    Scenario,
)

KINDS: dict[Any, Kind] = {
    str: "text",
    Label: "label",
    LabelledNumbers: "numbers",
    ScaleNumber: "number",
    ScaleWeights: "weights",
}
SHOWN_AGAIN = 4000  # characters of a wrong answer that the model is shown when asked again


class NoAnswer(Exception):
    """A job that failed: carries the value that goes into the record. `tokens`: what an answer
    came to that nobody has counted, as it was not even read to its end."""

    def __init__(self, failure: Failure, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(failure.message)
        self.failure, self.tokens = failure, tokens


class Unfinished(Exception):
    """A job that has no answer yet, and may send nothing more: what may be spent is spent."""


class NotNow(Exception):
    """No reply, or one that says to come back later. Carries the failure should it stay so."""

    def __init__(self, failure: Failure, wait: float | None = None) -> None:
        super().__init__(failure.message)
        self.failure, self.wait = failure, wait

    def pause(self, times: int) -> float:
        """Seconds to wait before asking again: what the server said, else longer each time."""
        if self.wait is not None:
            return self.wait
        seconds: float = min(8.0, 0.5 * 2**times)
        return seconds * uniform(0.7, 1.3)  # or all would come back at once


@dataclass(slots=True)
class Trail:
    """What happened on the wire during one job. The job keeps it; adapter and engine fill it."""

    seed: int | None = None
    calls: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    raw: str = ""
    constrained: str = ""
    unheard: int = 0  # requests in a row to which nobody replied
    replies: int = 0
    promised: int = 0  # requests that it may send, for all that may be spent
    waits: bool = False  # nothing of it is in flight: it waits for its next try, or for a place
    gone: bool = False  # no server is left that will ever answer it
    avoid: set[str] = field(default_factory=set)  # endpoints that have failed it
    at: Sequence[str] = ()  # those that may be asked; none means all
    notes: dict[str, Any] = field(default_factory=dict)  # what the record keeps beside the answer
    may_go_on: Callable[[Trail], bool] | None = None  # who watches over what is spent
    judge: Callable[[bool], bool] | None = None  # who sent the last answer learns what it was worth

    def go_on(self) -> None:
        """Before each request more than it has questions. Raises Unfinished."""
        if self.may_go_on is not None and not self.may_go_on(self):
            raise Unfinished

    def pause(self, seconds: float) -> None:
        """Before the same is asked again."""
        self.waits = True
        try:
            pause(seconds)
        finally:
            self.waits = False
        self.go_on()  # it may have come to its end meanwhile

    def hear(self, is_reply: bool) -> None:
        """Of a request: whether there was a reply to it."""
        self.replies += is_reply
        self.unheard = 0 if is_reply else self.unheard + 1

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def judged(self, is_good: bool) -> bool:
        """Whether the last answer could be used; gives whether another server may do better."""
        judge, self.judge = self.judge, None  # once; and it knows this trail, which would last
        return judge is not None and judge(is_good)


TRAIL: ContextVar[Trail | None] = ContextVar("align_dsl_trail", default=None)


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said, and whether it had said all."""

    text: str
    cut_off: bool = False


class TypedAdapter(dspy.Adapter):
    """Typed inputs in, typed outputs out. `retries` is for the whole of a job, whatever it asks."""

    def __init__(self, retries: int = 1) -> None:
        super().__init__()
        self.retries = retries

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: Sequence[Mapping[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        shape = shape_of(signature, inputs)
        said = messages(_instructions(signature, signature.__doc__), shape, inputs, demos)
        asker = _Asker(lm, lm_kwargs, shape, TRAIL.get() or Trail())
        trail, shown_mistake = asker.trail, False
        while True:
            try:
                answer = asker.ask(said)
                trail.judged(True)
                return [answer]
            except NotNow as not_now:
                if trail.retries >= self.retries:
                    raise NoAnswer(not_now.failure) from None
                trail.go_on()
                trail.pause(not_now.pause(trail.retries))
            except Invalid as wrong:
                trail.judged(False)
                if shown_mistake or trail.retries >= self.retries:
                    raise NoAnswer(asker.invalid(wrong)) from None
                trail.go_on()
                shown_mistake = True
                said = [*said, *_again(trail.raw, wrong)]
            trail.retries += 1

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The messages alone, as DSPy's own tools ask for them."""
        return list(messages(signature.instructions, shape_of(signature, inputs), inputs, demos))


@dataclass(slots=True)
class _Asker:
    """Asks one LM for answers of one shape."""

    lm: Any
    lm_kwargs: dict[str, Any]
    shape: Shape
    trail: Trail

    def ask(self, said: list[Message]) -> dict[str, Any]:
        if self.shape.weighs:
            return {self.shape.outputs[0][0]: self._weighed(said)}
        heard = self._heard(said)
        self.trail.raw = heard.text
        if heard.cut_off:
            message = "the answer was cut off at the token limit"
            failure = Failure(status="truncated", message=message, raw=heard.text)
            raise NotNow(failure, 0.0) if self.trail.judged(False) else NoAnswer(failure)
        return parse(self.shape, heard.text)

    def _weighed(self, said: list[Message]) -> ScaleWeights:
        weigh = getattr(getattr(self.lm, "engine", None), "weigh", None)
        if weigh is None:
            message = "`rating: expected` needs log-probabilities, which this model does not tell"
            message += "; use `rating: verbal` or `rating: sampled`"
            raise NoAnswer(Failure(status="refused", message=message))
        weights: ScaleWeights = weigh(said, self.shape, self.trail)
        return weights

    def _heard(self, said: list[Message]) -> Said:
        wished = {**getattr(self.lm, "kwargs", {}), **self.lm_kwargs}
        temperature = wished.get("temperature")
        # an engine of ours is asked as it is: all that DSPy's LM adds costs half of the whole
        if ask := getattr(getattr(self.lm, "engine", None), "ask", None):
            heard: Said = ask(said, self.shape, self.trail, temperature)
            return heard
        self.trail.calls += 1
        try:
            response = self.lm(
                request(self.lm.model, self.shape, said, self.trail.seed, temperature)
            )
        except dspy.LMError as error:
            message = sayable(str(error))[:300]
            raise NoAnswer(Failure(status="refused", message=message)) from None
        return Said(sayable(response.message.text or ""), response.finish_reason == "length")

    def invalid(self, wrong: Invalid) -> Failure:
        return Failure(status="invalid", message=str(wrong), raw=self.trail.raw)


def _again(raw: str, wrong: Invalid) -> list[Message]:
    return [
        {"role": "assistant", "content": raw[:SHOWN_AGAIN] or "(nothing)"},
        {"role": "user", "content": f"That answer cannot be used: {wrong}. Answer again."},
    ]


def request(
    model: str,
    shape: Shape,
    said: list[Message],
    seed: int | None,
    temperature: float | None = None,
) -> Any:
    """The same question for an LM that is not ours."""
    first, *rest = said
    return Request(
        model=model,
        system=first["content"],
        messages=tuple(
            LmMessage(role=m["role"], parts=(TextPart(text=m["content"]),)) for m in rest
        ),
        config=Config(
            seed=seed,
            temperature=temperature,
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


@lru_cache(maxsize=512)
def _outputs(signature: Any) -> tuple[tuple[str, Kind], ...]:
    fields = signature.output_fields.items()
    return tuple((name, KINDS.get(f.annotation, "json")) for name, f in fields)


@lru_cache(maxsize=512)
def _instructions(signature: Any, doc: str) -> str:
    """DSPy cleans the text anew whenever it is asked for; `doc` is what it is made from."""
    return str(signature.instructions)
