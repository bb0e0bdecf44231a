"""Which exemplars are shown: never the case itself, and nothing that an order of files decides."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest

from align_dsl.algorithms._similarity import similarities
from align_dsl.algorithms.recall import recall
from align_dsl.pipeline import load
from align_dsl.types import Attribute, Choice, Exemplar, Pool, Scenario
from tests.test_run import decide, decisions
from tests.worlds import PROGRAM, cases, write_world

MERCY = Attribute(name="mercy", title="mercy", about="about", high="high", low="low")
WORDS = ("bread", "water", "fire", "letter", "boat", "child", "door", "winter", "song", "bridge")
SELECTIONS = ["similar", "stratified", "diverse", "random", "subset"]


def scenario(text: str, *choices: str) -> Scenario:
    made = tuple(Choice(id=str(i), text=t) for i, t in enumerate(choices))
    return Scenario(id=text, text=text, choices=made)


def exemplars(n: int = 30, seed: int = 0) -> list[Exemplar]:
    dice, made = random.Random(seed), []
    for i in range(n):
        words = dice.sample(WORDS, 4)
        labels = {"0": {"mercy": i % 5 / 4}, "1": {"mercy": 1.0}}
        asked = scenario(f"case {i} {' '.join(words[:2])}", words[2], words[3])
        made.append(Exemplar(scenario=asked, labels=labels))
    return made


def turned(one: Exemplar) -> Exemplar:
    """The same with its choices the other way round, under other ids."""
    choices = one.scenario.choices[::-1]
    new = tuple(c.model_copy(update={"id": f"x{c.id}"}) for c in choices)
    labels = {f"x{i}": by for i, by in one.labels.items()}
    asked = one.scenario.model_copy(update={"id": f"other {one.scenario.id}", "choices": new})
    return one.model_copy(update={"scenario": asked, "labels": labels})


QUESTION = scenario("who gets bread and water in winter", "the child", "the boat")


def shown(
    select: str, pool: list[Exemplar], about: Scenario = QUESTION, k: int = 6, **more: int
) -> list[str]:
    picked = recall(k=k, select=select, **more)(  # type: ignore[arg-type]
        scenario=about, pool=Pool(tuple(pool)), attribute=MERCY
    )
    return [e.scenario.text for e in picked]


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_neither_files_nor_ids_have_a_say(select: str, seed: int) -> None:
    pool = exemplars()
    mixed = [turned(e) for e in pool]
    random.Random(seed).shuffle(mixed)
    other = QUESTION.model_copy(update={"id": "other", "choices": QUESTION.choices[::-1]})
    assert shown(select, pool) == shown(select, mixed, other)


@pytest.mark.parametrize("select", SELECTIONS)
def test_never_the_case_itself_nor_one_with_its_text(select: str) -> None:
    pool = exemplars()
    for one in pool[:10]:
        spaced = scenario(f"  {one.scenario.text.replace(' ', '  ')}", "else", "other")
        found = shown(select, pool, spaced)
        assert one.scenario.text not in found
        assert len(found) == 6


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("k", [0, 1, 6, 99])
def test_as_many_as_are_asked_for_and_each_once(select: str, k: int) -> None:
    found = shown(select, exemplars(), k=k)
    assert len(found) == len(set(found)) == min(k, 30)


@pytest.mark.parametrize("select", [*SELECTIONS, "fixed"])
def test_only_what_is_labelled(select: str) -> None:
    pool = [*exemplars(3), *(e.model_copy(update={"labels": {}}) for e in exemplars(9)[3:])]
    ids = tuple(e.scenario.id for e in pool) if select == "fixed" else ()
    picked = recall(k=9, select=select, ids=ids)(  # type: ignore[arg-type]
        scenario=QUESTION, pool=Pool(tuple(pool)), attribute=MERCY
    )
    assert {e.scenario.id for e in picked} == {e.scenario.id for e in pool[:3]}


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("decider", ["comparative_regression", "prompt_aligned"])
def test_permuting_choices_and_cases_changes_no_decision(
    decider: str, select: str, tmp_path: Path
) -> None:
    dice, straight = random.Random(3), cases(10)
    mixed = [{**c, "choices": dice.sample(c["choices"], len(c["choices"]))} for c in straight]  # type: ignore[arg-type,call-overload]
    dice.shuffle(mixed)
    mine = f"  mine: {{use: {decider}, with: {{shots: 4, select: {select}}}}}\n"
    head, _, rest = PROGRAM.partition("  regression:")
    program = head + mine + "model: " + rest.partition("model: ")[2]
    results = []
    for i, world in enumerate((straight, mixed)):
        folder = tmp_path / str(i)
        outcome = decide(load(write_world(folder, world, program)), folder)
        results.append(decisions(folder, outcome.record.id))
    assert results[0] == results[1]
    assert any(status == "ok" for _, status in results[0].values())


# --- the same for every question


def test_a_subset_is_the_same_for_every_question() -> None:
    pool = exemplars()
    questions = [scenario(f"question {i} of bread", "a", "b") for i in range(20)]
    found = {tuple(shown("subset", pool, q, seed=3)) for q in questions}
    assert len(found) == 1
    seeds = {tuple(shown("subset", pool, seed=s)) for s in range(8)}
    assert len(seeds) == 8


def test_a_question_of_the_subset_gets_the_next_one_drawn() -> None:
    pool = exemplars()
    drawn = shown("subset", pool, k=7)
    for i, text in enumerate(drawn[:6]):
        own = next(e.scenario for e in pool if e.scenario.text == text)
        assert shown("subset", pool, own) == [*drawn[:i], *drawn[i + 1 :]]


def test_a_smaller_pool_keeps_the_order_of_what_is_left() -> None:
    """So the blocks of a search are shown the same, but for what is of the block itself."""
    pool = exemplars()
    drawn = shown("subset", pool, k=30)
    some = [e for i, e in enumerate(pool) if i % 3]
    texts = {e.scenario.text for e in some}
    assert shown("subset", some) == [t for t in drawn if t in texts][:6]


# --- diverse


def test_the_diverse_begin_with_the_most_similar_next_to_the_question() -> None:
    pool = exemplars()
    assert shown("diverse", pool)[-1] == shown("similar", pool)[-1]
    assert shown("diverse", pool, k=1) == shown("similar", pool, k=1)


def test_the_diverse_are_less_alike_than_the_similar() -> None:
    def alike(select: str, seed: int) -> float:
        pool = exemplars(60, seed)
        place = {e.scenario.text: i for i, e in enumerate(pool)}
        picked = [place[text] for text in shown(select, pool)]
        return sum(
            similarities(pool[a].scenario, pool)[b] + similarities(pool[b].scenario, pool)[a]
            for a, b in combinations(picked, 2)
        )

    diverse, similar = (
        sum(alike(select, seed) for seed in range(5)) for select in ("diverse", "similar")
    )
    assert diverse < 0.9 * similar


def test_of_twins_the_diverse_take_one_first() -> None:
    twins = [
        Exemplar(
            scenario=scenario(f"bread and water in winter {i}", "the child", "the boat"),
            labels={"0": {"mercy": 0.0}, "1": {"mercy": 1.0}},
        )
        for i in range(3)
    ]
    others = exemplars(12)
    found = shown("diverse", [*twins, *others], k=3)
    assert sum("winter" in text and "and" in text for text in found) == 1
    assert sum("and" in text for text in shown("similar", [*twins, *others], k=3)) == 3
