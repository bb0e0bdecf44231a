"""A run -> what its page shows: who decided, how it came out, where deciders disagree.

Judgements are passed through once and kept without their ratings and reasons; those of the few
decisions that are shown in full are fetched again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from align_dsl.records.record import Judgement, Recorded
from align_dsl.types import Case, Scale, Target

LISTED = 50  # disagreements
FAILURES = 12  # failed decisions in full
FAILURES_OF_A_KIND = 3  # of one decider and status

Pair = tuple[str, str]  # decider and model
Fetch = Callable[[str], Iterable[Judgement]]  # scenario -> its judgements in full


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One scenario and target on which not all deciders chose the same."""

    scenario: str
    target: str
    judgements: tuple[Judgement, ...]  # without ratings and reasons
    insight: tuple[Judgement, ...]  # of these, the ones by deciders that do not read labels

    @property
    def informative(self) -> tuple[int, int, int]:
        """Pairs of deciders, one right and one wrong, of which no tie was broken by seed; all such
        pairs; minus the ties."""
        firm = Counter(j.correct for j in self.insight if j.decision.status == "ok")
        every = Counter(j.correct for j in self.insight if j.decision.choice is not None)
        ties = sum(j.decision.status == "tied" for j in self.insight)
        return firm[True] * firm[False], every[True] * every[False], -ties


@dataclass(slots=True)
class Sheet:
    run: Recorded  # without judgements
    fetch: Fetch
    notes: Mapping[str, str]  # model -> how to name it
    judged: dict[Pair, list[Judgement]] = field(default_factory=dict)
    statuses: dict[Pair, Counter[str]] = field(default_factory=dict)
    failed: list[Judgement] = field(default_factory=list)  # a few, in full
    disagreements: list[Disagreement] = field(default_factory=list)  # the most informative
    disagreeing: int = 0  # of all
    label_readers: Set[str] = frozenset()  # deciders whose disagreeing is not counted
    questions: int = 0  # scenario x target
    cases: dict[str, Case] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)

    @property
    def pairs(self) -> list[Pair]:
        """In the order of the program, as far as it goes."""
        order = {name: i for i, name in enumerate(self.run.record.deciders)}
        found = dict.fromkeys((r.decider, r.model) for r in self.run.record.results)
        found.update(dict.fromkeys(self.judged))
        return sorted(found, key=lambda pair: order.get(pair[0], len(order)))

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(model for _, model in self.pairs))

    @property
    def decisions(self) -> int:
        return sum(len(judged) for judged in self.judged.values())

    def model(self, name: str) -> str:
        return self.notes.get(name) or name

    def name(self, pair: Pair) -> str:
        """The decider; with its model where the run has several."""
        return pair[0] if len(self.models) == 1 else f"{pair[0]} on {self.model(pair[1])}"

    def scale(self, attribute: str) -> Scale:
        return self.scales.get(attribute, Scale())

    def written(self, attribute: str, value: float) -> str:
        """A value on 0..1, as a number on the attribute's scale; ratings may lie between steps."""
        scale = self.scale(attribute)
        number = scale.low + value * (scale.high - scale.low)
        return f"{number:.2f}".rstrip("0").rstrip(".")

    def in_full(self, scenario: str, target: str) -> list[Judgement]:
        order = {pair: i for i, pair in enumerate(self.pairs)}
        found = [j for j in self.fetch(scenario) if j.target == target and not j.control]
        return sorted(found, key=lambda j: order.get(_pair(j), len(order)))


def sheet(
    run: Recorded, judgements: Iterable[Judgement], fetch: Fetch, notes: Mapping[str, str]
) -> Sheet:
    made = Sheet(run, fetch, notes)
    made.cases = {case.scenario.id: case for case in run.cases}
    made.targets = {target.name: target for target in run.record.targets}
    made.scales = {
        a["name"]: Scale.model_validate(a.get("scale", {}))
        for a in run.program.get("attributes", ())
    }
    together: defaultdict[tuple[str, str], list[Judgement]] = defaultdict(list)
    kinds: Counter[tuple[Pair, str]] = Counter()
    for judgement in judgements:
        if judgement.control:
            continue
        d, pair = judgement.decision, _pair(judgement)
        made.statuses.setdefault(pair, Counter())[d.status] += 1
        kinds[pair, d.status] += 1
        if (
            d.choice is None
            and kinds[pair, d.status] <= FAILURES_OF_A_KIND
            and len(made.failed) < FAILURES
        ):
            made.failed.append(judgement)
        light = _light(judgement)
        made.judged.setdefault(pair, []).append(light)
        together[d.scenario, judgement.target].append(light)
    made.questions = len(together)
    deciders = {decider for decider, _ in made.judged}
    if len(deciders - _label_readers(run)) > 1:
        made.label_readers = deciders & _label_readers(run)
    made.disagreements, made.disagreeing = _disagreements(together, made.label_readers)
    return made


def _label_readers(run: Recorded) -> set[str]:
    """Such as the oracle: that others differ from it tells no more than that they are wrong."""
    return {
        decider["name"]
        for decider in run.program.get("deciders", ())
        if any("labels" in step["takes"].values() for step in decider["steps"])
    }


def _pair(judgement: Judgement) -> Pair:
    return judgement.decision.decider, judgement.decision.model


def _light(judgement: Judgement) -> Judgement:
    bare = judgement.decision.model_copy(update={"ratings": (), "votes": (), "failures": ()})
    return judgement.model_copy(update={"decision": bare})


def _disagreements(
    together: Mapping[tuple[str, str], Sequence[Judgement]], label_readers: Set[str]
) -> tuple[list[Disagreement], int]:
    """The most informative first; of equals, no scenario comes again before all others came."""
    found = []
    for (scenario, target), judged in together.items():
        insight = tuple(j for j in judged if j.decision.decider not in label_readers)
        if len({j.decision.choice for j in insight if j.decision.choice is not None}) > 1:
            found.append(Disagreement(scenario, target, tuple(judged), insight))
    seen: Counter[object] = Counter()
    ranks = []
    for place, one in enumerate(found):
        score = one.informative
        again = seen[score, one.scenario]
        seen[score, one.scenario] += 1
        ranks.append((*(-part for part in score), again, place))
    return [found[rank[-1]] for rank in sorted(ranks)[:LISTED]], len(found)
