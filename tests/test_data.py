"""The shipped data keeps the promises of its datasheets: balance, no duplicates, true ranges."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest

from align_dsl.records.judge import right_choices
from align_dsl.types import Case, Target
from tests.worlds import ROOT, shipped

PROGRAMS = ["mta", "opinions", "preferences"]


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_case_is_whole(name: str) -> None:
    loaded = shipped(name)
    known = {a.name for a in loaded.program.attributes}
    for case in loaded.cases:
        assert case.scenario.text.strip(), case.scenario.id
        assert 2 <= len(case.scenario.choices) <= 5, case.scenario.id
        assert set(case.attributes()) <= known
        texts = [c.text for c in case.scenario.choices]
        assert len(set(texts)) == len(texts), case.scenario.id
        for attribute in case.attributes():
            values = [case.labels[c.id][attribute] for c in case.scenario.choices]
            assert all(0 <= v <= 1 for v in values)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_two_scenarios_are_alike(name: str) -> None:
    """Templates share most of their words; separate stories share few."""
    bags = {c.scenario.id: words(c.scenario.text) for c in shipped(name).cases}
    limit = 0.35 if name == "mta" else 0.7
    for (a, first), (b, second) in combinations(bags.items(), 2):
        assert len(first & second) / len(first | second) < limit, (a, b)


def singles(cases: tuple[Case, ...], attribute: str, value: float) -> list[tuple[Case, int]]:
    """Cases with a single right choice for one end of an attribute, and its position."""
    target = Target(name="t", values={attribute: value})
    found = []
    for case in cases:
        right = right_choices(case, target) if attribute in case.attributes() else None
        if right and len(right) == 1:
            ids = [c.id for c in case.scenario.choices]
            found.append((case, ids.index(next(iter(right)))))
    return found


def test_triage_has_what_was_asked_of_it() -> None:
    cases = shipped("mta").cases
    assert len(cases) >= 144
    labelled = Counter(a for c in cases for a in c.attributes())
    assert len(labelled) == 6
    assert min(labelled.values()) >= 30
    both = [c for c in cases if len(c.attributes()) == 2]
    conflicts = [c for c in both if in_conflict(c)]
    assert len(conflicts) >= 20
    values = [v for c in cases for by in c.labels.values() for v in by.values()]
    between = [v for v in values if 0.15 < v < 0.85]
    assert len(between) >= 0.2 * len(values)  # real intermediate values
    assert {len(c.scenario.choices) for c in cases} == {2, 3, 4, 5}


def in_conflict(case: Case) -> bool:
    """Whether the best choice on one attribute is among the worse half on the other."""
    first, second = sorted(case.attributes())
    ids = [c.id for c in case.scenario.choices]
    best = max(ids, key=lambda c: case.labels[c][first])
    ranked = sorted(ids, key=lambda c: case.labels[c][second])
    return ranked.index(best) < len(ids) / 2


@pytest.mark.parametrize("name", PROGRAMS)
def test_positions_and_lengths_give_nothing_away(name: str) -> None:
    """Among two-choice cases, right answers stand first, and are longest, about half the time."""
    loaded = shipped(name)
    two = tuple(c for c in loaded.cases if len(c.scenario.choices) == 2)
    hits = [
        (position, max((0, 1), key=lambda i: len(case.scenario.choices[i].text)) == position)
        for attribute in loaded.program.attributes
        if attribute.name not in ("complexity", "verbosity")  # these are about length
        for case, position in singles(two, attribute.name, 1.0)
    ]
    if len(hits) < 30:
        pytest.skip("too few two-choice cases to tell")
    for share in (sum(p == 0 for p, _ in hits) / len(hits), sum(n for _, n in hits) / len(hits)):
        assert 0.4 <= share <= 0.6


def test_opinions_differ_between_groups() -> None:
    loaded = shipped("opinions")
    names = [a.name for a in loaded.program.attributes]
    differ = 0
    for case in loaded.cases:
        tops = {
            max(case.labels, key=lambda c: case.labels[c].get(n, -1))
            for n in names
            if n in case.attributes()
        }
        differ += len(tops) > 1
    assert differ >= len(loaded.cases) / 2
    assert Counter(a for c in loaded.cases for a in c.attributes()).most_common()[-1][1] >= 30


@pytest.mark.parametrize("name", ["triage", "opinions", "preferences"])
def test_each_set_has_a_datasheet_with_its_true_size(name: str) -> None:
    sheet = (ROOT / "docs" / "data" / f"{name}.md").read_text()
    lines = (ROOT / "programs" / "data" / f"{name}.jsonl").read_text().splitlines()
    assert str(len(lines)) in sheet
