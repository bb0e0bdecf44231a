"""Log-probabilities of one token -> how probable a model finds each number of a scale.

The server is held to the scale's numbers and asked for one token; what counts are the alternatives
that it names at that place, renormalised over the scale's numbers.

A number may be several tokens to a model: `10` is `1` and `0` to many. Which are, is found out once
by dictating them. What such a number is worth depends on what the log-probabilities are of:

* Before the constraint (llama.cpp): it is dictated, and each of its tokens has its worth; what
  begins like it, `1` alone, is worth that much less. What the numbers have of the whole (the mass)
  is kept: where it is small, the model would rather have said something else.
* After the constraint (vLLM): what is dictated is certain. So the server is held to those numbers
  that begin alike, `1` and `10`, and asked how they go on. The mass cannot be had; what is kept is
  how much of the whole the server named, as it names no more than so many alternatives.

Either way it is one question more for each number, or each beginning, that is not told at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align_dsl.engine.adapter import NoAnswer, NotNow
from align_dsl.types import Failure, ScaleWeights

MOST_MORE = 3  # questions after the first, before it would cost too many
WORTH_ASKING = 1e-4  # how probable a beginning must be before it is asked how it goes on
ROUNDING = 1e-3  # by which the logarithm of something certain may miss 0
INSTEAD = "use `rating: verbal` or `rating: sampled`"


@dataclass(frozen=True, slots=True)
class Token:
    """What was said at one place, and how probable it and its alternatives were."""

    text: str
    logprob: float
    others: Mapping[str, float]  # text -> log-probability, the token's own among them


Texts = tuple[str, ...]
Tell = Callable[[tuple[str, ...], int], Sequence[Token]]
"""Ask for one of these texts, in so many tokens at most."""


@dataclass(frozen=True, slots=True)
class Weighed:
    weights: ScaleWeights
    share: float  # what the scale's numbers had before they were made to add up to 1
    masked: bool

    def note(self) -> dict[str, Any]:
        said = {f"{n:.10g}": round(w, 6) for n, w in self.weights.items() if w >= 5e-7}
        return {"named" if self.masked else "mass": round(self.share, 6), "weights": said}


@dataclass(slots=True)
class Weigher:
    """What has been learnt of a model's tokens, kept for all its questions."""

    masked: bool
    spelt: dict[str, Texts] = field(default_factory=dict)  # number -> its tokens
    refusal: Failure | None = None  # why it is no use to ask again, whatever the scale
    refusals: dict[Texts, Failure] = field(default_factory=dict)  # and of one scale's numbers

    def refuses(self, numbers: Texts) -> Failure | None:
        """Why these numbers cannot be weighed, as far as that is known."""
        return self.refusal or self.refusals.get(numbers)

    def weigh(
        self, numbers: tuple[str, ...], tell: Tell, first: Sequence[Token] | None = None
    ) -> Weighed:
        """Raises NoAnswer where probabilities cannot be had, the same for every later question on
        that scale. `first`: what has been said already to the question for one of all numbers."""
        if known := self.refuses(numbers):
            raise NoAnswer(known)
        try:
            return self._weighed(numbers, tell, first)
        except Unable as unable:
            message = f"`rating: expected` is not possible here: {unable}"
            failure = Failure(status="refused", message=message)
            if isinstance(unable, Untold):
                self.refusal = failure
            else:
                self.refusals[numbers] = failure
            raise NoAnswer(failure) from None

    def _weighed(
        self, numbers: tuple[str, ...], tell: Tell, first: Sequence[Token] | None
    ) -> Weighed:
        found = _at(tell(numbers, 1) if first is None else first, 0)
        how = self._followed if self.masked else self._added_up
        weights = how(found, numbers, tell)
        share = sum(weights.values())
        if share <= 0:
            message = "the model finds none of the scale's numbers probable enough to be named"
            raise NoAnswer(Failure(status="invalid", message=message, raw=found.text))
        made = ScaleWeights({float(number): w / share for number, w in weights.items()})
        return Weighed(made, min(1.0, share), self.masked)

    # --- before the constraint ---------------------------------------------------------------

    def _added_up(self, found: Token, numbers: tuple[str, ...], tell: Tell) -> dict[str, float]:
        """What each number has; those of several tokens are dictated, each time."""
        weights = {number: _exp(found.others, number) for number in numbers}
        for number in numbers:
            if len(number) > 1 and len(self.spelt.get(number, "??")) > 1:
                self._only_a_few(numbers)
                if (worth := self._dictated(number, tell)) is not None:
                    weights[number] = worth
        return self._apart(weights)

    def _is_several(self, number: str) -> bool:
        return len(self.spelt.get(number, ())) > 1

    def _dictated(self, number: str, tell: Tell) -> float | None:
        """How probable a number of several tokens is; None where it is one, and told already."""
        said = tell((number,), len(number))
        _at(said, 0)
        worth, texts = 0.0, []
        for token in said:
            worth += token.logprob
            texts.append(token.text.strip())
            if "".join(texts) == number:
                self.spelt[number] = tuple(texts)
                return math.exp(worth) if self._is_several(number) else None
        raise Unable(f"the server said {''.join(texts)!r} where `{number}` was dictated; {INSTEAD}")

    def _apart(self, weights: dict[str, float]) -> dict[str, float]:
        """What a number has, without what the numbers have that begin with its tokens."""
        apart = dict(weights)
        for number in weights:
            shorter = [n for n in weights if n != number and number.startswith(n)]
            if shorter and self._is_several(number):
                longest = max(shorter, key=len)
                apart[longest] = max(0.0, apart[longest] - weights[number])
        return apart

    def _only_a_few(self, numbers: tuple[str, ...]) -> None:
        if sum(self._is_several(n) for n in numbers) > MOST_MORE:
            raise Unable(
                f"on the scale from {numbers[0]} to {numbers[-1]}, more than {MOST_MORE} "
                f"numbers are several tokens to this model; {INSTEAD}, or a scale from 0 to 9"
            )

    # --- after the constraint ----------------------------------------------------------------

    def _followed(self, found: Token, numbers: tuple[str, ...], tell: Tell) -> dict[str, float]:
        """What each number has of what its tokens have, one after the other."""
        for number in numbers:
            if len(number) == 1 or _exp(found.others, number) > 0:
                self.spelt[number] = (number,)
            elif number not in self.spelt:
                self._dictated(number, tell)
                self._only_a_few_beginnings(numbers)
        weights = dict.fromkeys(numbers, 0.0)
        beginnings: list[tuple[Texts, float]] = [((), 1.0)]
        while beginnings:
            texts, share = beginnings.pop()
            alike = tuple(n for n in numbers if self.spelt[n][: len(texts)] == texts)
            if len(alike) == 1 or share < WORTH_ASKING:
                weights[min(alike, key=len)] += share
                continue
            place, whole = len(texts), "".join(texts)
            following = {self.spelt[n][place] for n in alike if len(self.spelt[n]) > place}
            if texts and len(following) == 1 and whole not in alike:  # it can go on in one way only
                beginnings.append(((*texts, *following), share))
                continue
            next_ = _after(texts, tell(alike, place + 1)) if texts else found
            ends = 1.0
            for text in sorted(following):
                goes_on = _exp(next_.others, text)
                ends -= goes_on
                beginnings.append(((*texts, text), share * goes_on))
            if whole in alike:
                weights[whole] += share * max(0.0, ends)
        return weights

    def _only_a_few_beginnings(self, numbers: tuple[str, ...]) -> None:
        known = [self.spelt[n] for n in numbers if n in self.spelt]
        begun = {texts[:i] for texts in known for i in range(1, len(texts) + 1)}
        several = [b for b in begun if sum(texts[: len(b)] == b for texts in known) > 1]
        if len(several) > MOST_MORE:
            raise Unable(
                f"on the scale from {numbers[0]} to {numbers[-1]}, more than {MOST_MORE} tokens "
                f"begin several numbers; {INSTEAD}, or a scale from 0 to 10"
            )


class Unable(Exception):
    """A scale that cannot be weighed by this server or model, and what to do instead."""


class Untold(Unable):
    """A server that tells no probabilities, whatever the scale."""


def _at(said: Sequence[Token], place: int) -> Token:
    if len(said) <= place:
        raise Untold(f"the server tells no log-probabilities; {INSTEAD}, or llama.cpp or vLLM")
    if not said[place].others:
        raise Untold(f"the server names no alternatives to a token; {INSTEAD}")
    return said[place]


def _after(texts: Texts, said: Sequence[Token]) -> Token:
    """What the server could have said after these tokens."""
    begun = "".join(texts)
    if len(said) <= len(texts) or "".join(t.text.strip() for t in said[: len(texts)]) != begun:
        raise Unable(f"the server does not tell how a number goes on after `{begun}`; {INSTEAD}")
    return _at(said, len(texts))


def _exp(others: Mapping[str, float], number: str) -> float:
    """The number in all its spellings: with a space before it, it is another token."""
    return sum(math.exp(p) for text, p in others.items() if text.strip() == number)


def tokens(said: Any, who: str = "the server") -> tuple[Token, ...]:
    """The `logprobs` of a choice in OpenAI's dialect, or of Ollama's answer. Raises NotNow where
    they are something else. What they are is not quoted: it may hold a key."""
    listed = said.get("content") if isinstance(said, dict) else said
    try:
        if not isinstance(listed, list | None):
            raise TypeError("no list of tokens")
        return tuple(_token(one) for one in listed or ())
    except (TypeError, ValueError) as error:
        message = f"{who} sent log-probabilities that cannot be read: {error}"
        raise NotNow(Failure(status="invalid", message=message)) from None


def _token(one: Any) -> Token:
    text, logprob = _worth(one)
    others = dict(map(_worth, one.get("top_logprobs") or ()))
    if others:
        others.setdefault(text, logprob)
    return Token(text, logprob, others)


def _worth(one: Any) -> tuple[str, float]:
    if not isinstance(one, dict) or not isinstance(text := one.get("token"), str):
        raise TypeError("a token without its text")
    logprob = one.get("logprob")
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise TypeError("a token without its log-probability")
    if not logprob <= ROUNDING:  # nor is NaN
        raise ValueError("a log-probability above 0")
    return text, float(logprob)
