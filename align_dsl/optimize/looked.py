"""A study as it is looked at: what is shown of it, where there is too much, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from align_dsl.errors import counted
from align_dsl.optimize.aims import Aims, aims_noted
from align_dsl.optimize.choose import allowed
from align_dsl.optimize.done import Done
from align_dsl.optimize.effects import front, interval
from align_dsl.optimize.journal import close_storage, lost, open_storage
from align_dsl.optimize.study import Study
from align_dsl.optimize.verdict import Verdict, noted
from align_dsl.records.stats import Interval

LISTED = 400  # trials in the table, and in the charts


@dataclass(frozen=True)
class Looked:
    """A study as it is looked at."""

    name: str
    facts: Mapping[str, Any]
    done: Sequence[Done]
    paid: tuple[int, int]  # calls and tokens
    looks: int = 0  # at its test cases, by whatever study

    @cached_property
    def aims(self) -> Aims:
        return aims_noted(self.facts)

    @cached_property
    def verdict(self) -> Verdict | None:
        return noted(self.facts)

    @property
    def found(self) -> Mapping[str, Any]:
        """What an optimizer of DSPy came back with, when it had come to its end."""
        found = self.facts.get("found")
        return found if isinstance(found, Mapping) else {}

    @property
    def by_dspy(self) -> str:
        """What of DSPy looks for better settings, where no search does: as it was called, or as
        long as it has not come to its end the name of the method."""
        method = str(self.facts.get("method", "search"))
        return str(self.found.get("optimizer", "")) or ("" if method == "search" else method)

    @property
    def tried(self) -> int:
        """Trials, or candidates of an optimizer of DSPy."""
        return int(self.found.get("candidates", 0)) if self.by_dspy else len(self.done)

    @property
    def train(self) -> tuple[float, float] | None:
        """The default and the best of all, on the train cases, or on DSPy's part of them."""
        if self.by_dspy:
            scores = self.found.get("scores")
            return (float(scores[0]), float(scores[1])) if scores else None
        if self.default is None or self.default.score is None:
            return None
        first = self.default.score
        return first, max([d.score or 0.0 for d in allowed(self.done)], default=first)

    @cached_property
    def default(self) -> Done | None:
        return next((d for d in self.done if d.slot == (0, 0)), None)

    @cached_property
    def chosen(self) -> Done | None:
        config = self.facts.get("chosen")
        return next((d for d in self.done if d.config == config), None)

    @cached_property
    def spans(self) -> dict[int, Interval | None]:
        return {d.number: interval(d, self.facts) for d in self.listed}

    @cached_property
    def listed(self) -> list[Done]:
        """All trials, or those that tell most where they are too many: the first, and the best."""
        if len(self.done) <= LISTED:
            return list(self.done)
        kept = {d.number for d in self.done[: LISTED // 2]}
        kept |= {d.number for d in (self.chosen, self.default) if d is not None}
        kept |= {d.number for d in front(self.done)[:LISTED]}
        best = sorted(allowed(self.done), key=lambda d: -(d.score or 0.0))
        for one in best:
            if len(kept) >= LISTED:
                break
            kept.add(one.number)
        return [d for d in self.done if d.number in kept]

    @property
    def cut(self) -> str | None:
        """What is to be said where not all trials are shown."""
        rest = len(self.done) - len(self.listed)
        return f" Not shown here: {counted(rest, 'trial')} of the middle." if rest else None


def read(where: Path | str, name: str | None = None) -> list[Looked]:
    """The studies of which something has come, or the one of this name. Nothing is written."""
    if isinstance(where, Path) and not where.exists():
        return []
    storage = open_storage(where)
    try:
        names = [one.study_name for one in storage.get_all_studies()]
        every = (Study(where, one, seen_in=storage) for one in names if name in (None, one))
        some = (one for one in every if name is not None or not one.is_empty)
        return [Looked(one.name, one.facts(), one.done(), one.paid()) for one in some]
    except Exception as error:
        if (said := lost(error)) is not None:
            raise said from error
        raise
    finally:
        close_storage(storage)
