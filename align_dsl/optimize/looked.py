"""A study as it is looked at: what is shown of it, where there is too much, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from align_dsl.optimize.aims import Aims, aims_noted
from align_dsl.optimize.choose import allowed
from align_dsl.optimize.effects import front, interval
from align_dsl.optimize.study import Done
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
    looks: int  # at its test cases, by whatever study

    @cached_property
    def aims(self) -> Aims:
        return aims_noted(self.facts)

    @cached_property
    def verdict(self) -> Verdict | None:
        return noted(self.facts)

    @property
    def by_dspy(self) -> str:
        """What of DSPy found the settings, where no search did."""
        found = self.facts.get("found")
        return str(found.get("optimizer", "")) if isinstance(found, Mapping) else ""

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
        return f" {rest:,} trials of the middle are not shown here." if rest else None
