"""What comes of sitting an exam: a mark for each question, and what the answers cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from align_dsl.records.record import Answer

RIGHT, WRONG, FAILED = "1", "0", "f"
Marks = str | tuple[str, ...]  # one of each question; several strings count as their mean


def rights(marks: Marks) -> list[float]:
    """1 for right, 0 for wrong; of several draws, how often it was right."""
    if isinstance(marks, str):
        return [1.0 if mark == RIGHT else 0.0 for mark in marks]
    return [row.count(RIGHT) / len(marks) for row in zip(*marks, strict=True)]


class Interrupted(Exception):
    """The trial did not come to its end: the budget was spent, or somebody asked to stop."""

    def __init__(self, reason: str, spent: Spent) -> None:
        super().__init__(reason)
        self.reason, self.spent = reason, spent


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: a case for a target, of which the labels can tell right from wrong."""

    case: str
    target: str
    group: str
    attribute: str
    block: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What answers cost: all that a configuration needs, and what of it was paid just now."""

    calls: int = 0
    tokens: int = 0
    paid: int = 0
    paid_tokens: int = 0
    decisions: int = 0  # that it was for: with those that the labels cannot judge

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.paid + other.paid,
            self.paid_tokens + other.paid_tokens,
            self.decisions + other.decisions,
        )


def spent_on(needed: Sequence[Answer], asked: Collection[str], decisions: int) -> Spent:
    """What these answers cost, those among them that were `asked` just now, and for how many."""
    fresh = [a for a in needed if a.key in asked]
    return Spent(
        calls=sum(a.calls for a in needed),
        tokens=sum(a.prompt_tokens + a.completion_tokens for a in needed),
        paid=sum(a.calls for a in fresh),
        paid_tokens=sum(a.prompt_tokens + a.completion_tokens for a in fresh),
        decisions=decisions,
    )


@dataclass(frozen=True, slots=True)
class Sat:
    """How a configuration did on some blocks: a mark per question, in the order of the exam."""

    marks: str = ""
    spent: Spent = field(default_factory=Spent)
    others: tuple[str, ...] = ()  # the marks with other draws of exemplars: see Exam.sit_often

    @property
    def drawn(self) -> Marks:
        return (self.marks, *self.others)

    def __add__(self, other: Sat) -> Sat:
        return Sat(self.marks + other.marks, self.spent + other.spent)
