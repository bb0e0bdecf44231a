"""Log-probabilities of one token -> how probable a model finds each number of a scale.

The server is held to the scale's numbers and asked for one token; what counts are the alternatives
that it names at that place. They are renormalised over the scale's numbers, and their share of the
whole (the mass) is kept: where it is small, the model would rather have said something else.

A number may be several tokens to a model: `10` is `1` and `0` to many. How probable it is, is then
had by dictating it and reading what each of its tokens was worth, one question more for each such
number; and what begins like it, `1` alone, is worth that much less. Only servers that tell
log-probabilities of before the constraint can be asked so: after it, what is dictated is certain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align_dsl.engine.adapter import NoAnswer
from align_dsl.types import Failure, ScaleWeights

MOST_DICTATED = 3  # numbers of several tokens, before it would cost too many questions
INSTEAD = "use `rating: verbal` or `rating: sampled`"


@dataclass(frozen=True, slots=True)
class Token:
    """What was said at one place, and how probable it and its alternatives were."""

    text: str
    logprob: float
    others: Mapping[str, float]  # text -> log-probability, the token's own among them


Tell = Callable[[tuple[str, ...], int], Sequence[Token]]
"""Ask for one of these texts, in so many tokens at most."""


@dataclass(frozen=True, slots=True)
class Weighed:
    weights: ScaleWeights
    mass: float  # what the scale's numbers had of the whole, before they were made to add up to 1

    def note(self) -> dict[str, Any]:
        said = {f"{n:.10g}": round(w, 6) for n, w in self.weights.items() if w >= 5e-7}
        return {"mass": round(self.mass, 6), "weights": said}


@dataclass(slots=True)
class Weigher:
    """What has been learnt of a model's tokens, kept for all its questions."""

    masked: bool
    several: dict[str, bool] = field(default_factory=dict)  # number -> whether it is several tokens
    refusal: Failure | None = None  # why it is no use to ask again

    def weigh(self, numbers: tuple[str, ...], tell: Tell) -> Weighed:
        """Raises NoAnswer where probabilities cannot be had, the same for every later question."""
        if self.refusal is not None:
            raise NoAnswer(self.refusal)
        try:
            return self._weighed(numbers, tell)
        except Unable as unable:
            message = f"`rating: expected` is not possible here: {unable}"
            self.refusal = Failure(status="refused", message=message)
            raise NoAnswer(self.refusal) from None

    def _weighed(self, numbers: tuple[str, ...], tell: Tell) -> Weighed:
        found = _at(tell(numbers, 1), 0)
        weights = {number: _exp(found.others, number) for number in numbers}
        for number in numbers:
            if len(number) > 1 and self.several.get(number, True):
                self._only_a_few(numbers)
                if (worth := self._dictated(number, tell)) is not None:
                    weights[number] = worth
        weights = self._apart(weights)
        mass = sum(weights.values())
        if mass <= 0:
            message = "the model finds none of the scale's numbers probable enough to be named"
            raise NoAnswer(Failure(status="invalid", message=message, raw=found.text))
        made = ScaleWeights({float(number): w / mass for number, w in weights.items()})
        return Weighed(made, min(1.0, mass))

    def _dictated(self, number: str, tell: Tell) -> float | None:
        """How probable a number of several tokens is; None where it is one, and told already."""
        said = tell((number,), len(number))
        first = _at(said, 0).text.strip()
        self.several[number] = first != number
        if first == number:
            return None
        if self.masked:
            raise Unable(
                f"`{number}` is several tokens to this model, and this server's log-probabilities "
                f"cannot tell it from `{first}`; {INSTEAD}, or a scale from 0 to 9"
            )
        worth, text = 0.0, ""
        for token in said:
            worth, text = worth + token.logprob, text + token.text.strip()
            if text == number:
                return math.exp(worth)
        raise Unable(f"the server said {text!r} where `{number}` was dictated; {INSTEAD}")

    def _apart(self, weights: dict[str, float]) -> dict[str, float]:
        """What a number has, without what the numbers have that begin with its tokens."""
        apart = dict(weights)
        for number in weights:
            shorter = [n for n in weights if n != number and number.startswith(n)]
            if shorter and self.several.get(number):
                longest = max(shorter, key=len)
                apart[longest] = max(0.0, apart[longest] - weights[number])
        return apart

    def _only_a_few(self, numbers: tuple[str, ...]) -> None:
        if sum(self.several.get(n, False) for n in numbers) > MOST_DICTATED:
            raise Unable(
                f"on the scale from {numbers[0]} to {numbers[-1]}, more than {MOST_DICTATED} "
                f"numbers are several tokens to this model; {INSTEAD}, or a scale from 0 to 9"
            )


class Unable(Exception):
    """A server or a model that cannot be asked for probabilities, and what to do instead."""


def _at(said: Sequence[Token], place: int) -> Token:
    if len(said) <= place:
        raise Unable(f"the server tells no log-probabilities; {INSTEAD}, or llama.cpp or vLLM")
    if not said[place].others:
        raise Unable(f"the server names no alternatives to a token; {INSTEAD}")
    return said[place]


def _exp(others: Mapping[str, float], number: str) -> float:
    """The number in all its spellings: with a space before it, it is another token."""
    return sum(math.exp(p) for text, p in others.items() if text.strip() == number)


def tokens(said: Any) -> tuple[Token, ...]:
    """The `logprobs` of a choice in OpenAI's dialect, or of Ollama's answer."""
    listed = said.get("content") if isinstance(said, dict) else said
    found = []
    for one in listed or ():
        others = {t["token"]: float(t["logprob"]) for t in one.get("top_logprobs") or ()}
        if others:
            others.setdefault(one["token"], float(one["logprob"]))
        found.append(Token(one["token"], float(one["logprob"]), others))
    return tuple(found)
