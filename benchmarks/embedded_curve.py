"""The tables of docs/embedded.md: how far the embedded backend gets, by number of exemplars.

    python benchmarks/embedded_curve.py [triage opinions preferences mta helpsteer2]

Every number comes from the modules that `align-dsl run` uses: recall, rate_together, closest.
Ties count as the share of the tied choices that is right.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dspy

from align_dsl import datasets
from align_dsl.algorithms.rate_together import rate_together
from align_dsl.algorithms.recall import recall
from align_dsl.aligners.closest import closest
from align_dsl.backends.embedded import embedded
from align_dsl.errors import Findings
from align_dsl.language.attributes import read_attributes
from align_dsl.language.program import Model
from align_dsl.language.source import read_source
from align_dsl.records.judge import right_choices
from align_dsl.records.stats import macro_bootstrap
from align_dsl.types import Attribute, Case, Exemplars, Pool, Rating, Target

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared/data"
ALL = 1000
SHOTS = (0, 1, 2, 5, 10, 20, ALL)


class Set(NamedTuple):
    attributes: str
    format: str
    path: Path
    ends: tuple[float, ...] = (0.0, 1.0)  # the targets: low and high, or high alone
    shots: tuple[int, ...] = SHOTS
    cases: int = ALL


SETS = {
    "triage": Set("mta", "jsonl", ROOT / "programs/data/triage.jsonl"),
    "opinions": Set("lindal", "jsonl", ROOT / "programs/data/opinions.jsonl", (1.0,)),
    "preferences": Set("helpsteer2", "jsonl", ROOT / "programs/data/preferences.jsonl"),
    "mta": Set("mta", "align-system", SHARED / "mta"),
    "helpsteer2": Set(
        "helpsteer2", "helpsteer2", SHARED / "helpsteer2/train.json", shots=(0, 5, 20), cases=150
    ),
}


class Result(NamedTuple):
    attribute: str
    family: str
    value: float


class Bench:
    def __init__(self, one: Set) -> None:
        source = read_source(ROOT / f"attributes/{one.attributes}.yaml", one.attributes)
        self.attributes = read_attributes(source, Findings())
        self.cases = datasets.load(one.format, one.path, self.attributes)[: one.cases]
        self.pool = datasets.pool_of(self.cases)
        self.family = {c.scenario.id: c.group or c.scenario.id for c in self.cases}
        self.ends = one.ends
        self.rate = rate_together()

    def judged(self) -> Iterator[tuple[Case, Attribute]]:
        for case in self.cases:
            for attribute in self.attributes.values():
                if right_choices(case, aim(attribute, self.ends[0])) is not None:
                    yield case, attribute

    def few_shot(self, k: int, family_out: bool = False) -> list[Result]:
        return [
            self.result(
                c,
                a,
                self.rate(scenario=c.scenario, attribute=a, demos=self.near(c, a, k, family_out)),
            )
            for c, a in self.judged()
        ]

    def wrong_attribute(self, k: int) -> list[Result]:
        """Rated on each other attribute in turn, with its exemplars; judged on the right one."""
        out = []
        for case, attribute in self.judged():
            for other in self.attributes.values():
                if other != attribute and (demos := self.near(case, other, k)):
                    rated = self.rate(scenario=case.scenario, attribute=other, demos=demos)
                    out.append(self.result(case, attribute, rated))
        return out

    def longest(self) -> list[Result]:
        """The longer a choice, the higher: a decider that reads nothing."""
        return [self.result(c, a, lengths(c, a)) for c, a in self.judged()]

    def near(self, case: Case, on: Attribute, k: int, family_out: bool = False) -> Exemplars:
        pool = self.pool
        if family_out:
            own = self.family[case.scenario.id]
            pool = Pool(tuple(e for e in pool.exemplars if self.family[e.scenario.id] != own))
        found: Exemplars = recall(k=k)(scenario=case.scenario, pool=pool, attribute=on)
        return found

    def result(self, case: Case, attribute: Attribute, ratings: tuple[Rating, ...]) -> Result:
        as_if = tuple(r.model_copy(update={"attribute": attribute.name}) for r in ratings)
        shares = []
        for end in self.ends:
            target = aim(attribute, end)
            right = right_choices(case, target) or frozenset()
            weights = closest(as_if, target, case.scenario)
            shares.append(sum(w for c, w in weights.items() if c in right))
        family = self.family[case.scenario.id]
        return Result(attribute.name, family, sum(shares) / len(shares))

    def chance(self) -> list[Result]:
        return [self.result(c, a, lengths(c, a, flat=True)) for c, a in self.judged()]


def lengths(case: Case, attribute: Attribute, flat: bool = False) -> tuple[Rating, ...]:
    longest = max(len(c.text) for c in case.scenario.choices)
    return tuple(
        Rating(choice=c.id, attribute=attribute.name, value=0.5 if flat else len(c.text) / longest)
        for c in case.scenario.choices
    )


def aim(attribute: Attribute, end: float) -> Target:
    return Target(name=f"{attribute.name}_{end:g}", values={attribute.name: end})


def row(name: str, results: list[Result], names: list[str]) -> str:
    cells = []
    for attribute in names:
        values = [r.value for r in results if r.attribute == attribute]
        cells.append(f"{sum(values) / len(values):.2f}")
    macro = macro_bootstrap(
        [r.value for r in results], [r.attribute for r in results], [r.family for r in results]
    )
    return f"| {' | '.join([name, *cells, str(macro)])} |"


def show(title: str, one: Set) -> None:
    bench = Bench(one)
    first = bench.chance()
    names = [a for a in bench.attributes if any(r.attribute == a for r in first)]
    counts = [f"{a} ({sum(r.attribute == a for r in first)})" for a in names]
    print(f"\n**{title}**\n\n| exemplars | {' | '.join(counts)} | all |")
    print("|---" * (len(names) + 2) + "|")
    for k in one.shots:
        print(row("all" if k == ALL else str(k), bench.few_shot(k), names), flush=True)
    most = max(one.shots)
    if len(set(bench.family.values())) < len(bench.cases):
        label = "all" if most == ALL else most
        print(row(f"{label}, family out", bench.few_shot(most, family_out=True), names))
    print(row("20, of wrong attributes", bench.wrong_attribute(20), names))
    print(row("longest choice", bench.longest(), names))
    print(row("chance", first, names), flush=True)


def main() -> None:
    wanted = sys.argv[1:] or list(SETS)
    backend = embedded(Model(name="embedded", backend="embedded", address=""))
    with dspy.context(lm=backend.lm, adapter=backend):
        for name in wanted:
            if SETS[name].path.exists():
                show(name, SETS[name])
            else:
                print(f"\n{name}: left out, {SETS[name].path} is not there")


if __name__ == "__main__":
    main()
