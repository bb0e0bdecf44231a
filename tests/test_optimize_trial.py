"""Sitting an exam: plans that are used again, and draws of exemplars that are averaged."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from align_dsl.optimize import plans
from align_dsl.optimize.draws import DRAWS, redrawn
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.sat import Marks, Sat, rights
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.untried import every
from align_dsl.optimize.verdict import compare
from align_dsl.pipeline import Changes, load
from align_dsl.records.store import Store
from tests.worlds import ATTRIBUTES, perfect_script, write_world

Opened = Callable[[str], Ready]

PROGRAM = """version: 1
program: small
about: Two attributes at once, so that it matters how distances are measured.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.5, test: 0.5}}
targets:
  - {name: mild, values: {mercy: high, order: low}}
  - {name: strict, values: {mercy: low, order: high}}
deciders:
  mine: {use: comparative_regression}
model: embedded
optimize: {decider: mine, space: SPACE}
"""
WORDS = ("spare", "strike", "wait", "ask", "pay", "leave", "bind", "free")


def hard_to_tell(n: int) -> list[dict[str, object]]:
    """Cases of which a few exemplars teach something, and other exemplars something else."""
    dice, made = random.Random(0), []
    for i in range(n):
        choices = []
        for name in "abc":
            words = dice.sample(range(len(WORDS)), 3)
            labels = {"mercy": min(10, sum(words) // 2), "order": dice.randrange(11)}
            text = " ".join(WORDS[w] for w in words)
            choices.append({"id": name, "text": f"{text} {name}{i}", "labels": labels})
        made.append({"id": f"c{i}", "scenario": f"situation {i}", "choices": choices})
    return made


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """A task whose space is the one given."""
    with Store.open(tmp_path / "a.db") as store:
        every_one: list[Ready] = []

        def open_one(space: str) -> Ready:
            program = PROGRAM.replace("SPACE", space)
            folder = tmp_path / str(len(every_one))
            path = write_world(folder, hard_to_tell(30), program, ATTRIBUTES)
            every_one.append(ready(Task(path, store=tmp_path / "a.db"), store))
            return every_one[-1]

        yield open_one
        for made in every_one:
            made.close()


@pytest.mark.parametrize("kept", [plans.KEPT, 100, 0])
def test_a_plan_that_is_used_again_says_what_a_fresh_one_says(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Configurations that only decide otherwise share their jobs, and decide otherwise."""
    monkeypatch.setattr(plans, "KEPT", kept)
    made = opened("{shots: [0, 2], select: [similar, random], norm: [l2, l1]}")
    exam = made.train
    norms = set()
    for config in [*every(made.space).values(), *every(made.space).values()]:
        for block in range(len(exam.blocks)):
            found, fresh = exam.plan(config, block), replace(exam).plan(config, block)
            assert list(found.jobs) == list(fresh.jobs)
            assert found.questions == fresh.questions
            assert found.asked == fresh.asked
            norms |= {q.decider.decide.params["norm"] for q in found.questions}
    assert norms == {"l1", "l2"}
    held = sum(len(p.jobs) for p in exam._plans.known.values())
    assert held == exam._plans.jobs <= max(kept, len(found.jobs))


def test_jobs_are_shared_by_what_only_decides_otherwise(opened: Opened) -> None:
    exam = opened("{norm: [l2, l1]}").train
    assert exam.plan({"norm": "l1"}, 0).jobs is exam.plan({"norm": "l2"}, 0).jobs


@pytest.mark.parametrize(
    ("marks", "means"),
    [
        ("10f", [1, 0, 0]),
        (("10f",), [1, 0, 0]),
        (("11", "10"), [1, 0.5]),
        (("1f", "01", "11", "11"), [0.75, 0.75]),
        ("", []),
    ],
)
def test_several_draws_count_as_their_mean(marks: Marks, means: list[float]) -> None:
    assert rights(marks) == means


def test_draws_are_those_of_other_seeds(opened: Opened) -> None:
    seeds = ", ".join(map(str, range(DRAWS)))
    made = opened(f"{{shots: [0, 2], select: [random], recall.seed: [{seeds}]}}")
    one = {"shots": 2, "select": "random"}
    sat = made.test.sit_often({**one, "recall.seed": 0})
    by_seed = [made.test.sit_all({**one, "recall.seed": seed}).marks for seed in range(DRAWS)]
    assert [sat.marks, *sat.others] == by_seed
    assert len(set(by_seed)) > 1
    assert made.test.score(sat.drawn) == pytest.approx(sum(map(made.test.score, by_seed)) / DRAWS)


def test_nothing_is_drawn_where_no_dice_are_rolled(opened: Opened) -> None:
    made = opened("{shots: [0, 2], select: [similar, random]}")
    assert made.test.sit_often({"shots": 2, "select": "similar"}).others == ()
    assert made.test.sit_often({"shots": 0}).others == ()
    program = made.space.program({"shots": 2, "select": "similar"})
    assert redrawn(program, 3) is program


def test_draws_cost_no_call(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not free is asked once."""
    made = opened("{shots: [0, 2], select: [random]}")
    monkeypatch.setattr(Exam, "_is_free", False)
    assert made.test.sit_often({"shots": 2, "select": "random"}).others == ()


def test_a_verdict_over_draws_is_surer_than_over_one(opened: Opened) -> None:
    made = opened("{shots: [0, 1], select: [random]}")
    one, two = {"shots": 1, "select": "random"}, {"shots": 0}
    first, second = (made.test.sit_often(c) for c in (one, two))
    drawn = compare(made.test, second, first)
    plain = compare(made.test, second, Sat(first.marks, first.spent))
    assert (plain.draws, drawn.draws) == (1, DRAWS)
    assert drawn.winner == pytest.approx(made.test.score(first.drawn))
    assert (drawn.questions, drawn.only_winner) == (plain.questions, plain.only_winner)
    assert drawn.gain[2] - drawn.gain[1] < plain.gain[2] - plain.gain[1]


def test_where_answers_cost_something_it_is_looked_after_a_few_groups(tmp_path: Path) -> None:
    """And a trial that is done a second time, all answers known, ends where it ended."""
    program = PROGRAM.replace("SPACE", "{norm: [l2, l1]}")
    path = write_world(tmp_path, hard_to_tell(120), program, ATTRIBUTES)
    script = perfect_script(load(path), tmp_path / "script.jsonl")
    task = Task(path, Changes(model=f"scripted:{script}"), store=tmp_path / "a.db")
    with Store.open(task.store) as store:
        made = ready(task, store)
        seen: list[int] = []

        def enough(marks: str) -> bool:
            seen.append(len(marks))
            return True

        first = made.train.sit_all(made.space.default, enough=enough)
        groups = {a.group for a in made.train.asked[: len(first.marks)]}
        assert len(groups) < len({a.group for a in made.train.asked if a.block == 0})
        assert seen == [len(first.marks)]
        assert first.spent.paid == first.spent.calls > 0
        seen.clear()
        again = made.train.sit_all(made.space.default, enough=enough)
        assert (again.marks, again.spent.calls) == (first.marks, first.spent.calls)
        assert again.spent.paid == 0
        made.close()


def test_where_nothing_is_paid_nothing_is_given_up(opened: Opened) -> None:
    made = opened("{norm: [l2, l1]}")
    sat = made.train.sit_all(made.space.default, enough=lambda marks: True)
    assert len(sat.marks) == len(made.train.asked)
