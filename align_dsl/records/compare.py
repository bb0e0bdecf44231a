"""Columns (a decider's judgements in some run) -> how each two of them differ on what both decided.

A pair is one case and one target that both columns have; the model may differ. Left out of the
numbers, and counted: pairs whose labels cannot tell right from wrong, and pairs on which one side
failed, since a failure is no decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from align_dsl.errors import PlanError, visible
from align_dsl.records.record import Judgement, Recorded
from align_dsl.records.stats import Interval, holm, mcnemar, paired_bootstrap, sign_flip
from align_dsl.types import Case, Target, digest


@dataclass(frozen=True, slots=True)
class Key:
    """What makes judgements of two runs comparable: the same name is not enough."""

    target: str
    scenario: str
    content: str


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    judgements: Mapping[Key, Judgement]


@dataclass(frozen=True, slots=True)
class Flip:
    """A pair on which exactly one side is right."""

    target: str
    scenario: str
    a: Judgement
    b: Judgement


@dataclass(frozen=True, slots=True)
class Comparison:
    a: str
    b: str
    both: int  # correct on both sides, and so on
    only_a: int
    only_b: int
    neither: int
    left_out: int
    failed_a: int  # of the pairs that labels can tell; some may have failed on both sides
    failed_b: int
    unpaired_a: int
    unpaired_b: int
    difference: Interval | None  # accuracy of b minus accuracy of a; groups of cases resampled
    p: float | None  # exact McNemar
    p_grouped: float | None  # by sign flips of whole groups, where some group has several pairs
    p_holm: float | None  # of p_grouped where there is one, else of p; None for one comparison
    flips: tuple[Flip, ...]

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def accuracy_a(self) -> float | None:
        return (self.both + self.only_a) / self.n if self.n else None

    @property
    def accuracy_b(self) -> float | None:
        return (self.both + self.only_b) / self.n if self.n else None


def column(name: str, run: Recorded, judgements: Iterable[Judgement]) -> Column:
    """`run` may come without judgements of its own."""
    cases = {case.scenario.id: case for case in run.cases}
    targets = {target.name: target for target in run.record.targets}
    found: dict[Key, Judgement] = {}
    for judgement in judgements:
        if judgement.control:
            continue
        d = judgement.decision
        content = _content(cases[d.scenario], targets[d.target])
        found[Key(d.target, d.scenario, content)] = judgement
    return Column(name, found)


def _content(case: Case, target: Target) -> str:
    """Digest of what is asked and of what is right: words, position of the target, and labels."""
    names = sorted(target.values)
    numbers = [[n, target.values[n], target.weights.get(n, 1.0)] for n in names]
    labels = sorted(
        [choice.text, *(str(case.labels.get(choice.id, {}).get(n)) for n in names)]
        for choice in case.scenario.choices
    )
    return digest(json.dumps([case.scenario.content(), numbers, labels]))


def compare(columns: Sequence[Column], *, seed: int = 0) -> list[Comparison]:
    """Every two of the columns."""
    return [compare_two(a, b, seed=seed) for a, b in combinations(columns, 2)]


def compare_two(a: Column, b: Column, *, seed: int = 0) -> Comparison:
    paired = [key for key in a.judgements if key in b.judgements]
    if not paired:
        raise PlanError(visible(_nothing_paired(a, b)))
    pairs = [(key, a.judgements[key], b.judgements[key]) for key in paired]
    told = [pair for pair in pairs if not (pair[1].left_out or pair[2].left_out)]
    decided = [(k, x, y) for k, x, y in told if x.correct is not None and y.correct is not None]
    rights_a = [int(bool(x.correct)) for _, x, _ in decided]
    rights_b = [int(bool(y.correct)) for _, _, y in decided]
    groups = [x.group for _, x, _ in decided]
    counts = {(i, j): 0 for i in (0, 1) for j in (0, 1)}
    for outcome in zip(rights_a, rights_b, strict=True):
        counts[outcome] += 1
    gains = [y - x for x, y in zip(rights_a, rights_b, strict=True)]
    grouped = len(set(groups)) < len(groups)
    return Comparison(
        a=a.name,
        b=b.name,
        both=counts[1, 1],
        only_a=counts[1, 0],
        only_b=counts[0, 1],
        neither=counts[0, 0],
        left_out=len(pairs) - len(told),
        failed_a=sum(x.correct is None for _, x, _ in told),
        failed_b=sum(y.correct is None for _, _, y in told),
        unpaired_a=len(a.judgements) - len(pairs),
        unpaired_b=len(b.judgements) - len(pairs),
        difference=paired_bootstrap(rights_b, rights_a, groups, seed=seed) if decided else None,
        p=mcnemar(rights_a, rights_b) if decided else None,
        p_grouped=sign_flip(gains, groups, seed=seed) if grouped else None,
        p_holm=None,
        flips=tuple(
            Flip(k.target, k.scenario, x, y) for k, x, y in decided if x.correct != y.correct
        ),
    )


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same, with p values adjusted for having made all of these comparisons if there are more
    than one."""
    ps = [c.p if c.p_grouped is None else c.p_grouped for c in comparisons]
    known = [i for i, p in enumerate(ps) if p is not None]
    adjusted = dict(zip(known, holm([p for p in ps if p is not None]), strict=True))
    if len(comparisons) < 2:
        return list(comparisons)
    return [replace(c, p_holm=adjusted.get(i)) for i, c in enumerate(comparisons)]


def _nothing_paired(a: Column, b: Column) -> str:
    said = f"{a.name} and {b.name} have nothing in common to compare"
    for what in ("target", "scenario"):
        of_a, of_b = ({getattr(k, what) for k in c.judgements} for c in (a, b))
        if not of_a or not of_b:
            return f"{said}: {a.name if not of_a else b.name} has decided nothing"
        if not of_a & of_b:
            return f"{said}: no {what} is in both ({_few(of_a)}; and {_few(of_b)})"
    of_a, of_b = ({(k.target, k.scenario) for k in c.judgements} for c in (a, b))
    if of_a & of_b:
        return f"{said}: targets and scenarios have the same names, but say different things"
    return f"{said}: no scenario was decided for the same target in both"


def _few(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (" ..." if len(shown) > 3 else "")
