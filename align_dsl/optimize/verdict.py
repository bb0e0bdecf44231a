"""The winner and the default, once, on the test cases that no trial has seen.

Every look is written down beside the store, by the content of the cases. Who looks often finds
something by luck: so the more looks there were, the surer the interval has to be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

from align_dsl.engine.execute import Stop
from align_dsl.optimize.aims import Aims, aims_of, costs
from align_dsl.optimize.sat import RIGHT, Sat
from align_dsl.optimize.task import Ready
from align_dsl.optimize.trial import Exam
from align_dsl.records.stats import Interval, mcnemar, sign_flip
from align_dsl.types import digest

TOLERATED = 0.05  # accuracy that may be lost where costs are weighed, for being cheaper


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

    @property
    def is_more_accurate(self) -> bool:
        """By the interval and by the test, both as sure as the number of looks asks for."""
        return self.sure[1] > 0 and self.p <= self.level

    @property
    def level(self) -> float:
        """What p may be: less for who draws for nothing, and for who looks often."""
        return (0.05 if self.draws == 1 else 0.01) / self.looks

    @property
    def is_as_good_for_less(self) -> bool:
        return bool(self.saves) and self.loss < TOLERATED

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
                f" and {100 * TOLERATED:.0f} are the most that is put up with"
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
    return Verdict(**plain)


def looks(file: Path, split: str) -> list[dict[str, Any]]:
    """Every look at these test cases so far; half a line at the end is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict) and one.get("split") == split:
            found.append(one)
    return found


def give(
    made: Ready, winner: Mapping[str, Any], *, budget: int | None = None, stop: Stop | None = None
) -> tuple[Verdict, int]:
    """The verdict, and the calls it cost. Looking again at the same pair is no further look."""
    file = made.task.store.parent / "looks.jsonl"
    before = looks(file, made.split)
    pair = digest(" ".join([made.loaded.program.name, *_configured(made, winner)]))
    sats = []
    paid = 0
    for config in (made.space.default, dict(winner)):
        left = None if budget is None else budget - paid
        sat = made.test.sit_often(config, budget=left, stop=stop)
        sats.append(sat)
        paid += sat.spent.paid
    known = [n for n, look in enumerate(before, start=1) if look.get("pair") == pair]
    n = known[0] if known else len(before) + 1
    verdict = compare(made.test, sats[0], sats[1], n)
    if not known:
        _write(file, {"split": made.split, "pair": pair, "study": made.study, **asdict(verdict)})
    return verdict, paid


def _configured(made: Ready, winner: Mapping[str, Any]) -> tuple[str, str]:
    """Both programs by content, so that a new file with the same winner is no new look."""
    configs = (made.space.default, dict(winner))
    first, second = (made.space.program(c).deciders[0].digest() for c in configs)
    return first, second


def compare(exam: Exam, default: Sat, winner: Sat, looks: int = 1) -> Verdict:
    one, two = default.drawn, winner.drawn
    right = [[int(m == RIGHT) for m in sat.marks] for sat in (winner, default)]
    gains = exam.by_group(two, one)
    score = (exam.score(one), exam.score(two))
    gain = exam.difference(two, one)
    sure = gain if looks == 1 else exam.difference(two, one, 1 - 0.05 / looks)
    difference = score[1] - score[0]
    aims = aims_of(exam.space.checked.program)
    breaks = tuple(name for name, share in aims.over(costs(winner)).items() if share > 0)
    return Verdict(
        default=score[0],
        winner=score[1],
        gain=_plain(gain, difference),
        sure=_plain(sure, difference),
        p=sign_flip(list(gains.values()), list(gains)),
        p_pairs=mcnemar(right[0], right[1]),
        only_winner=sum(a > b for a, b in zip(*right, strict=True)),
        only_default=sum(a < b for a, b in zip(*right, strict=True)),
        questions=len(default.marks),
        groups=len(gains),
        looks=looks,
        calls=(default.spent.calls, winner.spent.calls),
        tokens=(default.spent.tokens, winner.spent.tokens),
        decisions=winner.spent.decisions,
        draws=max(len(one), len(two)),
        saves=_saves(aims, costs(default), costs(winner)),
        breaks=breaks,
        loss=max(0.0, -_plain(sure, difference)[1], -_least(list(gains.values()), looks)),
    )


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
    z = NormalDist().inv_cdf(1 - 0.025 / looks)
    spread = sqrt(sum((p - mean) ** 2 for p in parts) + 1)
    return (mean * n - z * spread) / (n + 2)


def _plain(interval: Interval | None, value: float) -> tuple[float, float, float]:
    """A single group shows nothing of how groups differ: then everything is possible."""
    if interval is None:
        return value, -1.0, 1.0
    return interval.value, interval.low, interval.high


def _write(file: Path, look: Mapping[str, Any]) -> None:
    """One line, whole and on the disk, whoever else writes."""
    line = json.dumps(look, ensure_ascii=False, sort_keys=True)
    handle = os.open(file, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, (("\n" if torn else "") + line + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)
