"""Marks of many configurations -> the one to bet on, and which are not worth going on with.

The best of many looks better than it is. So scores are averaged with those of their neighbours
first; the choice falls on the configuration nearest to the file among those that cannot be told
from the best (the one-standard-error rule), or on the cheapest of them where costs are weighed; and
what the search has gained is estimated by choosing on some blocks and looking at the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log, sqrt

from align_dsl.errors import PlanError
from align_dsl.optimize.aims import Aims, aims_of
from align_dsl.optimize.done import Done
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.sat import RIGHT
from align_dsl.optimize.smooth import smoothed
from align_dsl.optimize.space import Space
from align_dsl.records.stats import Interval

HOPELESS = 0.3  # how seldom a fair coin looks so bad; benchmarks/optimize_pruning.py: what it costs


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the search would bet on. It is the default where nothing looks better."""

    done: Done
    default: Done
    best: Done  # the highest score within the limits, for what that is worth
    gain: Interval | None  # over the default, on the train cases that chose it: too good
    checked: float | None = None  # the gain of choosing so, on blocks that had no say

    @property
    def is_default(self) -> bool:
        return self.done.config == self.default.config


def hopeless(exam: Exam, marks: str, other: str) -> bool:
    """Whether a configuration is plainly worse than another on what it has seen.

    A sign test over groups that holds however often it is looked at: of the groups on which the
    two differ, how many are lost.
    """
    gains = exam.by_group(marks, other[: len(marks)]).values()
    won, lost = sum(g > 1e-12 for g in gains), sum(g < -1e-12 for g in gains)
    return lost > won and evidence(won, lost) >= -log(HOPELESS)


def evidence(won: int, lost: int) -> float:
    """The logarithm of how much better a coin that is not fair explains it: all such coins alike
    likely. A fair coin comes above log(1 / p) with a chance of at most p, in however many looks.
    """
    n = won + lost
    return n * log(2) + lgamma(won + 1) + lgamma(lost + 1) - lgamma(n + 2)


def estimate(exam: Exam, marks: str, best: Done) -> float:
    """What a sampler is told of a pruned configuration: its loss so far, shrunk for being early."""
    seen = len(exam.blocks) * len(marks) / len(exam.asked)
    loss = exam.score(marks) - exam.score(best.sat.marks[: len(marks)])
    return (best.score or 0.0) + loss * seen / (seen + 1)


def whole(done: Sequence[Done]) -> list[Done]:
    """Trials that have answered every block."""
    return [d for d in done if d.score is not None and not d.pruned]


def allowed(done: Sequence[Done]) -> list[Done]:
    """Of these, the ones that keep to every limit."""
    return [d for d in whole(done) if d.is_allowed]


def incumbent(done: Sequence[Done]) -> Done | None:
    """The best of what was tried to the end and keeps to the limits; of equals the first."""
    return max(allowed(done), key=lambda d: d.score or 0.0, default=None)


def choose(exam: Exam, space: Space, done: Sequence[Done], pick: int | None = None) -> Chosen:
    """`done` begins with the default. `pick`: take the trial of this number, by no rule."""
    aims, default = aims_of(space.checked.program), done[0]
    every = whole(done)  # the default is always among them
    best = max(allowed(done), key=lambda d: d.score or 0.0, default=default)
    blocks = [a.block for a in exam.asked]
    if pick is not None:
        picked = _the_one(done, pick)
        return Chosen(picked, default, best, exam.difference(picked.sat.marks, default.sat.marks))
    picked = _pick(exam, space, aims, every, [True] * len(blocks))
    checked = 0.0
    for block in sorted(set(blocks)):
        one = _pick(exam, space, aims, every, [b != block for b in blocks])
        inside = [b == block for b in blocks]
        checked += sum(_gains(exam, one, default, inside).values())
    gain = exam.difference(picked.sat.marks, default.sat.marks)
    return Chosen(picked, default, best, gain, checked)


def _the_one(done: Sequence[Done], number: int) -> Done:
    found = next((d for d in allowed(done) if d.number == number), None)
    if found is not None:
        return found
    one = next((d for d in done if d.number == number), None)
    if one is None:
        why = f"there is no trial {number}"
    elif one.score is None:
        why = f"trial {number} could not be tried"
    elif one.pruned:
        why = f"trial {number} was given up before its end"
    else:
        why = f"trial {number} does not keep to `at_most`"
    raise PlanError(f"error: {why}\n  = `align-dsl studies show last --trials` lists all of them")


def _pick(exam: Exam, space: Space, aims: Aims, every: Sequence[Done], use: Sequence[bool]) -> Done:
    """Of those within a standard error of the best, neighbours having their say, the cheapest where
    costs are weighed, else the simplest.

    Where they are not, the default, which comes first, has to be beaten; by how much is for the
    test cases to say. Where they are, it is one of those to choose from.
    """
    scores = [_score(exam, d, use) for d in every]
    even = smoothed(space, [d.config for d in every], scores)
    is_beaten = not aims.several and every[0].is_allowed
    pairs = zip(every, even, strict=True)
    others = [(d, s) for i, (d, s) in enumerate(pairs) if d.is_allowed and (i or not is_beaten)]
    if not others or (is_beaten and max(s for _, s in others) <= even[0]):
        return every[0]
    best, _ = max(others, key=lambda pair: pair[1])

    def is_as_good(one: Done) -> bool:
        gains = list(_gains(exam, best, one, use).values())
        return sum(gains) <= standard_error(gains) + 1e-12

    chosen, _ = min(
        [pair for pair in others if is_as_good(pair[0])],
        key=lambda pair: (
            [pair[0].costs[name] for name in aims.weighed],
            len(space.changes(pair[0].config)),
            pair[0].sat.spent.calls,
            -pair[1],
            pair[0].slot,
        ),
    )
    if is_beaten and _score(exam, chosen, use) <= scores[0] + 1e-12:
        return every[0]
    return chosen


def _score(exam: Exam, done: Done, use: Sequence[bool]) -> float:
    marks = zip(exam.weights, done.sat.marks, use, strict=True)
    return sum(w for w, m, u in marks if u and m == RIGHT)


def _gains(exam: Exam, one: Done, other: Done, use: Sequence[bool]) -> dict[str, float]:
    """What each group adds to the difference of two, on some questions."""
    gains: dict[str, float] = {}
    rows = zip(exam.asked, exam.weights, one.sat.marks, other.sat.marks, use, strict=True)
    for a, w, m, n, u in rows:
        if u:
            gains[a.group] = gains.get(a.group, 0.0) + w * ((m == RIGHT) - (n == RIGHT))
    return gains


def standard_error(parts: Sequence[float]) -> float:
    """Of a sum of independent parts, from how they differ."""
    n = len(parts)
    if n < 2:
        return 0.0
    mean = sum(parts) / n
    return sqrt(n / (n - 1) * sum((p - mean) ** 2 for p in parts))
