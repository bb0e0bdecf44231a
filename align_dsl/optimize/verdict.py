"""The winner and the default, once, on the test cases that no trial has seen.

The more looks there were at these cases (looks.py counts them), the surer the interval has to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any

from align_dsl.engine.execute import Stop
from align_dsl.language.program import TOLERATED
from align_dsl.optimize.aims import Aims, aims_of, costs
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.journal import turn
from align_dsl.optimize.looks import cases_of, file_of, level, looks, pair_of, write
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.sat import FAILED, RIGHT, Sat
from align_dsl.optimize.task import Ready
from align_dsl.records.stats import Interval, mcnemar, sign_flip

ONE_DRAW, SIX_DRAWS = 0.05, 0.01  # what p may be at the first look: less for who draws for nothing
FLIPS = 20  # of the sign-flip test, for each time that p asks for a chance this small


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the winner did against the default, in accuracy averaged over attributes."""

    default: float
    winner: float
    gain: tuple[float, float, float]  # the difference, and its 95 % interval, by groups
    sure: tuple[float, float, float]  # the same interval, as wide as the number of looks asks for
    p: float  # that there is no difference, turning round whole groups
    p_pairs: float  # McNemar's, which takes questions to be independent
    only_winner: int  # questions that it alone got right
    only_default: int
    questions: int
    groups: int
    looks: int  # at these test cases, this one included
    calls: tuple[int, int]  # that each needs: default, winner
    tokens: tuple[int, int]
    decisions: int = 0  # that they were needed for
    draws: int = 1  # of exemplars, whose mean the accuracies are; the counts are of the first
    saves: tuple[str, ...] = ()  # of what costs count, where the winner is the cheaper one
    breaks: tuple[str, ...] = ()  # limits that the winner does not keep to, on these cases
    loss: float = 1.0  # of accuracy, at the most: as sure as the number of looks asks for
    level: float = ONE_DRAW  # what p may be: less for who looks often
    tolerance: float = TOLERATED  # accuracy that may be lost for being cheaper
    failed: tuple[int, int] = (0, 0)  # questions that got no answer, and count as wrong

    @property
    def is_more_accurate(self) -> bool:
        """By the interval and by the test, both as sure as the number of looks asks for."""
        return self.sure[1] > 0 and self.p <= self.level

    @property
    def is_as_good_for_less(self) -> bool:
        return bool(self.saves) and self.loss < self.tolerance

    @property
    def is_better(self) -> bool:
        return not self.breaks and (self.is_more_accurate or self.is_as_good_for_less)

    @property
    def why(self) -> str:
        """The conclusion in plain words."""
        if self.breaks:
            limits = " and ".join(self.breaks)
            return f"on the test cases it needs more {limits} than a decision may"
        if self.is_more_accurate:
            return "more accurate on cases that no trial saw"
        if self.is_as_good_for_less:
            return f"fewer {' and '.join(self.saves)}, and at most {self._lost} of accuracy lost"
        if self.saves:
            return (
                f"fewer {' and '.join(self.saves)}, but up to {self._lost} of accuracy may be lost,"
                f" and {100 * self.tolerance:g} are the most that is put up with"
            )
        said = "the test cases do not show that it is"
        return f"{said}; p may be {self.level:.2g} at most" if self.sure[1] > 0 else said

    @property
    def _lost(self) -> str:
        return f"{100 * self.loss:.1f} points"

    def each(self, cost: str) -> tuple[float, float]:
        """What a decision costs: with the default, with the winner."""
        default, winner = self.calls if cost == "calls" else self.tokens
        return default / max(1, self.decisions), winner / max(1, self.decisions)


def noted(facts: Mapping[str, Any]) -> Verdict | None:
    """The verdict as a study's facts have it; those of older versions say less."""
    said = facts.get("verdict")
    if not isinstance(said, dict):
        return None
    known = {f.name for f in fields(Verdict)}
    rows = ((k, tuple(v) if isinstance(v, list) else v) for k, v in said.items())
    plain: dict[str, Any] = {k: v for k, v in rows if k in known}
    if "level" not in plain:  # as it was asked for before it was written down
        plain["level"] = (ONE_DRAW if plain.get("draws", 1) == 1 else SIX_DRAWS) / plain["looks"]
    return Verdict(**plain)


def give(
    made: Ready, winner: Mapping[str, Any], *, purse: Purse | None = None, stop: Stop | None = None
) -> Verdict:
    """The verdict. Looking again at the same pair is no further look."""
    configs = (made.space.default, dict(winner))
    sats = [made.test.sit_often(config, purse=purse, stop=stop) for config in configs]
    file, pair, cases = file_of(made), pair_of(made, winner), cases_of(made)
    look = {"split": made.split, "pair": pair}
    with turn(file):  # so that two who judge at once do not count as one look
        before = looks(file, made.split, cases)
        known = [n for n, one in enumerate(before, start=1) if one | look == one]
        verdict = compare(made.test, sats[0], sats[1], known[0] if known else len(before) + 1)
        if not known:
            write(file, {**asdict(verdict), **look, "study": made.study, "cases": cases})
    return verdict


def compare(exam: Exam, default: Sat, winner: Sat, looks: int = 1) -> Verdict:
    one, two, program = default.drawn, winner.drawn, exam.space.checked.program
    right = [[int(m == RIGHT) for m in sat.marks] for sat in (winner, default)]
    gains = exam.by_group(two, one)
    score = (exam.score(one), exam.score(two))
    gain = exam.difference(two, one)
    sure = gain if looks == 1 else exam.difference(two, one, 1 - level(looks))
    difference = score[1] - score[0]
    draws, optimize = max(len(default.others), len(winner.others)) + 1, program.optimize
    asked = level(looks, ONE_DRAW if draws == 1 else SIX_DRAWS)
    aims = aims_of(program)
    breaks = tuple(name for name, share in aims.over(costs(winner)).items() if share > 0)
    return Verdict(
        default=score[0],
        winner=score[1],
        gain=_plain(gain, difference),
        sure=_plain(sure, difference),
        p=sign_flip(list(gains.values()), list(gains), draws=_flips(asked)),
        p_pairs=mcnemar(right[0], right[1]),
        only_winner=sum(a > b for a, b in zip(*right, strict=True)),
        only_default=sum(a < b for a, b in zip(*right, strict=True)),
        questions=len(default.marks),
        groups=len(gains),
        looks=looks,
        calls=(default.spent.calls, winner.spent.calls),
        tokens=(default.spent.tokens, winner.spent.tokens),
        decisions=winner.spent.decisions,
        draws=draws,
        saves=_saves(aims, costs(default), costs(winner)),
        breaks=breaks,
        loss=max(0.0, -_plain(sure, difference)[1], -_least(list(gains.values()), looks)),
        level=asked,
        tolerance=TOLERATED if optimize is None else optimize.tolerance,
        failed=(default.marks.count(FAILED), winner.marks.count(FAILED)),
    )


def _flips(asked: float) -> int:
    """Enough of them that p can be as small as is asked for, and is not so by luck."""
    return min(999_999, max(9_999, ceil(FLIPS / asked)))


def _saves(
    aims: Aims, default: Mapping[str, float], winner: Mapping[str, float]
) -> tuple[str, ...]:
    """Costs that count and are less, unless another that counts is more. A cost counts that is
    weighed, or whose limit the default does not keep."""
    broken = [name for name, share in aims.over(default).items() if share > 0]
    counts = dict.fromkeys([*aims.weighed, *broken])
    if any(winner[name] > default[name] for name in counts):
        return ()
    return tuple(name for name in counts if winner[name] < default[name])


def _least(gains: list[float], looks: int) -> float:
    """The low end of the mean gain over groups, which are fewer than they look.

    A bootstrap of groups that all agree has no width, however few they are; this is Agresti and
    Min's interval of paired shares, which adds half a group to each way that two can differ.
    """
    n = len(gains)
    parts = [gain * n for gain in gains]
    mean = sum(parts) / n
    z = NormalDist().inv_cdf(1 - level(looks) / 2)
    spread = sqrt(sum((p - mean) ** 2 for p in parts) + 1)
    return (mean * n - z * spread) / (n + 2)


def _plain(interval: Interval | None, value: float) -> tuple[float, float, float]:
    """A single group shows nothing of how groups differ: then everything is possible."""
    if interval is None:
        return value, -1.0, 1.0
    return interval.value, interval.low, interval.high
