"""A wording that a model came up with -> why it cannot be tried, if it cannot."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from align_dsl.errors import CompileError
from align_dsl.language.space import WORDING
from align_dsl.language.tunable import Tunable
from align_dsl.language.wording import FIELDS, fields_in
from align_dsl.optimize.mistakes import LONGEST, Mistake
from align_dsl.optimize.task import Ready
from align_dsl.registry import ALGORITHMS

TOO_LONG = 4  # times the present length, and it is no wording any more
COPIED = 8  # words in a row that may not come from a case


class Sieve:
    """For one setting: what it says now, and what of other texts can stand in its place."""

    def __init__(self, made: Ready, t: Tunable, shown: Sequence[Mistake]) -> None:
        self.made, self.name, self.shown = made, t.name, shown
        self.now = present(made, t)
        known = next((d.values or () for d in made.space.dimensions if d.name == t.name), ())
        self.known = [one for one in known if one not in (None, self.now)]

    @property
    def needed(self) -> list[str]:
        """The fields of the present wording, each once."""
        return [name for name in dict.fromkeys(fields_in(self.now)) if name in FIELDS]

    def wrong(self, text: str, texts: Sequence[str]) -> str:
        """Why a text cannot be tried beside the others; empty where it can."""
        if not text:
            return "empty"
        if _plain(text) in map(_plain, (self.now, *self.known, *texts)):
            return "said before"
        if lost := [f"{{{one}}}" for one in self.needed if one not in fields_in(text)]:
            return f"without {', '.join(lost)}"
        if len(text) > TOO_LONG * max(LONGEST, len(self.now)):
            return "far too long"
        if self._copies(text):
            return "with the words of a case"
        try:
            self.made.space.program({**self.made.space.default, self.name: text})
        except CompileError as error:
            return f"that would not compile ({error.first})"
        return ""

    def _copies(self, text: str) -> bool:
        """Whether a case is quoted: it would be recognised, rather than judged."""
        cases = (m.case.scenario for m in self.shown)
        theirs = (said for c in cases for said in (c.text, *(one.text for one in c.choices)))
        return bool({r for said in theirs for r in _runs(said)} & (_runs(text) - _runs(self.now)))


def present(made: Ready, t: Tunable) -> str:
    """The present wording, where the file leaves it to the algorithm as well."""
    if t.default is not None:
        return str(t.default)
    name = made.space.decider.step(t.places[0].partition(".")[0]).algorithm.name
    return str(inspect.signature(ALGORITHMS[name].__init__).parameters[WORDING].default)


def seen(text: str) -> str:
    """Without what nobody can see, or a file cannot hold."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t").strip()


def _runs(text: str) -> set[str]:
    words = _plain(text).split()
    return {" ".join(words[i : i + COPIED]) for i in range(len(words) - COPIED + 1)}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
