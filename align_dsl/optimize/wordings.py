"""One setting that holds instructions -> other wordings of them, each asked for by itself.

Whatever a model answers is a wording. What cannot be tried is refused, and counted by why; the
others stand in the next question, so that they differ.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from align_dsl.engine.execute import Stop
from align_dsl.errors import BackendError, visible
from align_dsl.language.tunable import Tunable
from align_dsl.optimize.author import Author
from align_dsl.optimize.mistakes import Mistake
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.sat import Interrupted, Spent
from align_dsl.optimize.sieve import Sieve, seen
from align_dsl.optimize.task import Ready
from align_dsl.records.record import Answer
from align_dsl.types import digest

FORMAT = 2  # counts up when other questions are asked
LIVELY = 0.7  # temperature; nobody wants the same text again
SPARE = 3  # texts that may be of no use, beyond those that are wanted
HOPELESS = 3  # requests in a row without a text, after which no more is asked
REASONS = 3  # that are told of, the commonest first
LONGEST_REASON = 200
AGAIN = "the same command asks again; without it: --set optimize.propose=null"


@dataclass(frozen=True, slots=True)
class Wordings:
    """What a model came up with for one setting."""

    texts: tuple[str, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)  # why -> how many

    @property
    def why(self) -> str:
        """What was wrong with the others, the commonest first."""
        most = Counter(self.refused).most_common()
        said = [f"{n} {why}" for why, n in most[:REASONS]]
        more = sum(n for _, n in most[REASONS:])
        return "; ".join([*said, f"{more} for other reasons"] if more else said)


@dataclass(slots=True)
class Asking:
    """Asks for wordings of one setting after another, for as long as there is money."""

    made: Ready
    author: Author
    purse: Purse = field(default_factory=Purse)
    stop: Stop = field(default_factory=Stop)

    def wordings(self, t: Tunable, shown: Sequence[Mistake]) -> Wordings:
        """As many as are wanted, if all goes well. Raises Interrupted, and BackendError where the
        model has gone: what it has written is kept, and not asked for again."""
        sieve, tries = Sieve(self.made, t, shown), 0
        while True:
            found, is_new = self._some(sieve, tries)
            if found.texts or is_new:
                return found
            tries += self._count + SPARE  # what is known is of no use: then something else

    @property
    def _count(self) -> int:
        assert self.made.optimize.propose is not None
        return self.made.optimize.propose.count

    def _some(self, sieve: Sieve, first: int) -> tuple[Wordings, bool]:
        """What comes of some tries, and whether anybody was asked."""
        texts, refused, failed, is_new = list[str](), Counter[str](), 0, False
        asks = task(sieve)
        for n in range(first, first + self._count + SPARE):
            if len(texts) == self._count or failed == HOPELESS:
                break
            answer, is_fresh = self._answer(asks, question(sieve, texts), n)
            is_new |= is_fresh
            if answer.failure is not None:
                failed += 1
                why = _short(f"{answer.failure.status}: {answer.failure.message}")
                if answer.failure.status == "unreachable":
                    raise self._gone(sieve.name, why)
                refused[why] += 1
                continue
            text, failed = seen(str(answer.output)), 0
            if why := sieve.wrong(text, texts):
                refused[why] += 1
            else:
                texts.append(text)
        return Wordings(tuple(texts), dict(refused)), is_new

    def _answer(self, asks: str, asked: str, n: int) -> tuple[Answer, bool]:
        """What comes of one try, and whether it was made just now."""
        warmth = max(LIVELY, self.author.model.temperature)
        key = digest(json.dumps([FORMAT, self.author.who, asks, asked, warmth, n]))
        store = self.made.train.store
        known = store.known([key]).get(key)
        if known is not None and known.failure is None:
            return known, False
        if self.stop.asked:
            raise Interrupted(self.stop.reason, Spent())
        if self.purse.is_over or self.purse.left.calls == 0:
            raise Interrupted("budget", Spent())
        answer = self.author.text(key, asks, asked, warmth)
        self.purse.over(store).put([answer])  # a failure gives way to whatever comes later
        return answer, True

    def _gone(self, name: str, why: str) -> BackendError:
        who = visible(self.author.model.name)
        return BackendError(
            f"error: `{who}` does not answer, so there are no new wordings of {name}: {why}\n"
            f"  = what it wrote before is kept; {AGAIN}"
        )


def task(sieve: Sieve) -> str:
    fields = ", ".join(f"{{{name}}}" for name in sieve.needed)
    kept = (
        "Words in braces are filled in later. The wording holds each of these, written exactly "
        f"so: {fields}. Nothing else stands in braces.\n"
        if fields
        else "Nothing stands in braces.\n"
    )
    return (
        "A language model is given instructions for one step of deciding as a certain person "
        "would. Write another wording of these instructions, with which it would make fewer "
        "mistakes. It asks for the same in the same form, and is complete, as it stands in place "
        "of the present one. It differs from those that there are: in what it explains, in what "
        "it warns of or in length.\n"
        f"{kept}"
        "Speak of no single situation: all will be decided with the same words.\n\n"
        "Write the wording, nothing before it and nothing after it."
    )


def question(sieve: Sieve, texts: Sequence[str]) -> str:
    """What there is: the instructions, what is judged with them, what goes wrong, and others."""
    program = sieve.made.loaded.program
    used = {name for target in program.targets for name in target.values}
    attributes = [a for a in program.attributes if a.name in used]
    parts = [f"Present instructions:\n{sieve.now}"]
    about = "\n".join(
        f"- {a.title}: {a.about}\n  Low end: {a.low}\n  High end: {a.high}" for a in attributes
    )
    parts.append(f"What is to be judged with them:\n{about}")
    if sieve.shown:
        mistakes = enumerate(sieve.shown, start=1)
        told = "\n\n".join(f"{i}. {m.told(attributes)}" for i, m in mistakes)
        parts.append(f"What went wrong with them (numbers from 0, low, to 1, high):\n\n{told}")
    else:
        parts.append("Nothing went wrong with them so far.")
    if others := [*sieve.known, *texts]:
        told = "\n\n".join(f"{i}. {text}" for i, text in enumerate(others, start=1))
        parts.append(f"Other wordings that there are:\n\n{told}")
    return "\n\n".join(parts)


def _short(text: str) -> str:
    text = " ".join(visible(text).split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]} ..."
