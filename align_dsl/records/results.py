"""Judgements -> the rows of the table: per target, per attribute, and over all attributes.

Beside every accuracy stand the chance level of the very cases it is of, the best decider that
never reads (always first, last, longest, shortest), and what was left out or failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from align_dsl.records.judge import right_choices
from align_dsl.records.record import Judgement, Result
from align_dsl.records.stats import Interval, chance, cluster_bootstrap, macro_bootstrap, wilson
from align_dsl.types import Case, Scenario, Score, Target

TRIVIAL: Mapping[str, Callable[[Scenario], int]] = {
    "first": lambda s: 0,
    "last": lambda s: len(s.choices) - 1,
    "longest": lambda s: max(range(len(s.choices)), key=lambda i: (len(s.choices[i].text), -i)),
    "shortest": lambda s: min(range(len(s.choices)), key=lambda i: (len(s.choices[i].text), i)),
}


@dataclass(slots=True)
class _Cell:
    """The judgements that one number is about, and where each comes from."""

    target: str
    attribute: str
    judged: list[tuple[Judgement, Case, Target]] = field(default_factory=list)
    strata: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[tuple[Judgement, Case, Target]]:
        return [t for t in self.judged if not t[0].left_out]


def attribute_of(target: Target) -> str:
    """What a target is about, in a word."""
    return next(iter(target.values)) if len(target.values) == 1 else target.name


def results(
    judgements: Sequence[Judgement],
    cases: Mapping[str, Case],
    targets: Sequence[Target],
    costs: Mapping[tuple[str, str], tuple[int, int]] | None = None,
    controls: Sequence[Judgement] = (),
) -> tuple[Result, ...]:
    """`costs`: (decider, model) -> calls and tokens. `controls`: decided for a wrong target."""
    wrong = {_at(r): r.value for r in results(controls, cases, targets)} if controls else {}
    by_name = {t.name: t for t in targets}
    rows: list[Result] = []
    groups: dict[tuple[str, str], list[Judgement]] = {}
    for j in judgements:
        groups.setdefault((j.decision.decider, j.decision.model), []).append(j)
    for (decider, model), mine in groups.items():
        calls, tokens = (costs or {}).get((decider, model), (0, 0))
        for cell in _cells(mine, cases, by_name):
            rows.append(_row(decider, model, cell, calls, tokens))
    return tuple(r.model_copy(update={"control": wrong.get(_at(r))}) for r in rows)


def _at(result: Result) -> tuple[str, str, str, str]:
    return result.decider, result.model, result.target, result.attribute


def _cells(
    judgements: Iterable[Judgement], cases: Mapping[str, Case], targets: Mapping[str, Target]
) -> list[_Cell]:
    single: dict[str, _Cell] = {}
    pooled: dict[str, _Cell] = {}
    whole = _Cell("all", "all")
    for j in judgements:
        target = targets[j.target]
        triple = (j, cases[j.decision.scenario], target)
        name = attribute_of(target)
        single.setdefault(target.name, _Cell(target.name, name)).judged.append(triple)
        pooled.setdefault(name, _Cell("both", name)).judged.append(triple)
        whole.judged.append(triple)
        whole.strata.append(name)
    several = [c for c in pooled.values() if len({t[2].name for t in c.judged}) > 1]
    cells = [*single.values(), *several]
    return [*cells, whole] if len(pooled) > 1 else cells


def _row(decider: str, model: str, cell: _Cell, calls: int, tokens: int) -> Result:
    kept = cell.kept
    decided = [t for t in kept if t[0].correct is not None]
    value, interval = _interval(cell, decided)
    by_luck = (
        _macro_chance(cell) if cell.strata else chance([(j.right, j.choices) for j, _, _ in kept])
    )
    trivial, trivial_name = _trivial(cell)
    return Result(
        decider=decider,
        model=model,
        target=cell.target,
        attribute=cell.attribute,
        metric="accuracy",
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=len(decided),
        left_out=len(cell.judged) - len(kept),
        failed=len(kept) - len(decided),
        chance=by_luck if isinstance(by_luck, float) else (by_luck.value if by_luck else None),
        trivial=trivial,
        trivial_name=trivial_name,
        calls=calls,
        tokens=tokens,
    )


def _interval(
    cell: _Cell, decided: list[tuple[Judgement, Case, Target]]
) -> tuple[float | None, Interval | None]:
    """The accuracy, and how far to trust it.

    Wilson for one target; where a scenario counts for several, whole groups are resampled. A
    single group gives no interval.
    """
    if not decided:
        return None, None
    values = [float(j.correct or 0) for j, _, _ in decided]
    clusters = [j.group for j, _, _ in decided]
    mean = sum(values) / len(values)
    if cell.strata:
        strata = [attribute_of(t) for _, _, t in decided]
        mean = _macro_mean(values, strata)
        return mean, _widened(mean, macro_bootstrap(values, strata, clusters), clusters)
    if cell.target == "both":
        return mean, _widened(mean, cluster_bootstrap(values, clusters), clusters)
    return mean, wilson(sum(values), len(values))


def _widened(mean: float, found: Interval | None, clusters: Sequence[str]) -> Interval | None:
    """Where all were right, or all wrong, resampling shows no spread, but there is doubt left."""
    groups = len(set(clusters))
    return wilson(mean * groups, groups) if found and mean in (0.0, 1.0) else found


def _macro_mean(values: Sequence[float], strata: Sequence[str]) -> float:
    by_stratum: dict[str, list[float]] = {}
    for value, stratum in zip(values, strata, strict=True):
        by_stratum.setdefault(stratum, []).append(value)
    means = [sum(v) / len(v) for v in by_stratum.values()]
    return sum(means) / len(means)


def _macro_chance(cell: _Cell) -> float | None:
    by_attribute: dict[str, list[tuple[int, int]]] = {}
    for j, _, target in cell.kept:
        by_attribute.setdefault(attribute_of(target), []).append((j.right, j.choices))
    levels = [c.value for sets in by_attribute.values() if (c := chance(sets))]
    return sum(levels) / len(levels) if levels else None


def _trivial(cell: _Cell) -> tuple[float | None, str]:
    """The best decider that looks at position or length alone, on these very cases."""
    best: tuple[float, str] | None = None
    for name, pick in TRIVIAL.items():
        hits: dict[str, list[int]] = {}
        for _, case, target in cell.kept:
            right = right_choices(case, target) or frozenset()
            chosen = case.scenario.choices[pick(case.scenario)].id
            stratum = attribute_of(target) if cell.strata else ""
            hits.setdefault(stratum, []).append(chosen in right)
        if hits:
            value = sum(sum(h) / len(h) for h in hits.values()) / len(hits)
            if best is None or value > best[0] + 1e-12:
                best = (value, name)
    return best if best else (None, "")


def row(at: tuple[str, str, str], target: Target, score: Score) -> Result:
    """A metric's score of one decider on one model for one target, as a row of the table."""
    return Result(
        decider=at[0],
        model=at[1],
        target=target.name,
        attribute=attribute_of(target),
        **score.model_dump(),
    )
