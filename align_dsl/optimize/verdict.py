"""The winner and the default, once, on the test cases that no trial has seen.

Every look is written down beside the store, by the content of the cases. Who looks often finds
something by luck: so the more looks there were, the surer the interval has to be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_dsl.engine.execute import Stop
from align_dsl.optimize.task import Ready
from align_dsl.optimize.trial import RIGHT, Exam, Sat
from align_dsl.records.stats import Interval, mcnemar, sign_flip
from align_dsl.types import digest


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

    @property
    def is_better(self) -> bool:
        """By the interval and by the test, both as sure as the number of looks asks for."""
        return self.sure[1] > 0 and self.p <= 0.05 / self.looks


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
        sat = made.test.sit_all(config, budget=left, stop=stop)
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
    one, two = default.marks, winner.marks
    right = [[int(m == RIGHT) for m in marks] for marks in (two, one)]
    gains = exam.by_group(two, one)
    score = (exam.score(one), exam.score(two))
    gain = exam.difference(two, one)
    sure = gain if looks == 1 else exam.difference(two, one, 1 - 0.05 / looks)
    difference = score[1] - score[0]
    return Verdict(
        default=score[0],
        winner=score[1],
        gain=_plain(gain, difference),
        sure=_plain(sure, difference),
        p=sign_flip(list(gains.values()), list(gains)),
        p_pairs=mcnemar(right[0], right[1]),
        only_winner=sum(a > b for a, b in zip(*right, strict=True)),
        only_default=sum(a < b for a, b in zip(*right, strict=True)),
        questions=len(one),
        groups=len(gains),
        looks=looks,
        calls=(default.spent.calls, winner.spent.calls),
        tokens=(default.spent.tokens, winner.spent.tokens),
    )


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
