"""Plans: what is shared, what is not, and what a key is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_dsl.datasets import pool_of
from align_dsl.engine.plan import Plan, plan
from align_dsl.pipeline import Loaded, load
from align_dsl.types import Case, Choice, Pool, Scenario, Target
from tests.work import counted
from tests.worlds import PROGRAM, cases, write_world


@pytest.fixture
def small(tmp_path: Path) -> Loaded:
    return load(write_world(tmp_path, cases(12)))


def planned(loaded: Loaded, targets: tuple[Target, ...] | None = None, seed: int = 0) -> Plan:
    used = loaded.program.targets if targets is None else targets
    return plan(loaded.program, loaded.cases, used, pool_of(loaded.pool), seed=seed)


def only(loaded: Loaded, *names: str) -> Loaded:
    kept = tuple(d for d in loaded.program.deciders if d.name in names)
    checked = loaded.checked
    program = checked.program.model_copy(update={"deciders": kept})
    return Loaded(type(checked)(program, checked.source), loaded.cases, loaded.pool)


@pytest.mark.parametrize("decider", ["regression", "alone", "baseline"])
def test_targets_are_free_for_deciders_that_do_not_ask_for_them(
    small: Loaded, decider: str
) -> None:
    one = only(small, decider)
    mercy = Target(name="m", values={"mercy": 0.0, "order": 0.0})
    many = tuple(
        mercy.model_copy(update={"name": f"m{i}", "values": {"mercy": i / 9, "order": 1.0}})
        for i in range(10)
    )
    few = planned(one, (mercy,))
    lots = planned(one, many)
    assert list(few.jobs) == list(lots.jobs)
    assert lots.asked == 10 * few.asked


def test_deciders_that_ask_for_the_target_have_jobs_for_each(small: Loaded) -> None:
    one = only(small, "prompt")
    low, high = (Target(name=n, values={"mercy": v}) for n, v in (("l", 0.0), ("h", 1.0)))
    assert len(planned(one, (low, high)).model_jobs) == 2 * len(planned(one, (low,)).model_jobs)


def test_the_name_of_a_target_is_not_in_a_key(small: Loaded) -> None:
    one = only(small, "prompt")
    first, second = (Target(name=n, values={"mercy": 1.0}) for n in ("one", "other"))
    assert list(planned(one, (first,)).jobs) == list(planned(one, (second,)).jobs)


def test_ids_and_labels_of_the_case_itself_are_not_in_a_key(small: Loaded) -> None:
    one = only(small, "regression", "baseline", "prompt")
    renamed = tuple(
        c.model_copy(
            update={
                "scenario": c.scenario.model_copy(update={"id": f"other-{c.scenario.id}"}),
                "labels": {k: {n: 1 - v for n, v in by.items()} for k, by in c.labels.items()},
            }
        )
        for c in one.cases
    )
    pool = pool_of(one.pool)
    before = plan(one.program, one.cases, one.program.targets, pool)
    after = plan(one.program, renamed, one.program.targets, pool)
    assert list(before.jobs) == list(after.jobs)


def test_permuting_choices_changes_no_key(small: Loaded) -> None:
    one = only(small, "regression", "baseline", "prompt", "consistent")
    turned = tuple(
        c.model_copy(
            update={"scenario": c.scenario.model_copy(update={"choices": c.scenario.choices[::-1]})}
        )
        for c in one.cases
    )
    pool = pool_of(one.pool)
    before = plan(one.program, one.cases, one.program.targets, pool)
    after = plan(one.program, turned, one.program.targets, pool)
    assert before.model_jobs == after.model_jobs


@pytest.mark.parametrize(
    ("order", "choices", "ways"),
    [
        ("given", 3, 1),
        ("shuffle", 3, 1),
        ("both", 3, 2),
        ("all", 3, 6),
        ("all", 4, 24),
        ("all", 5, 2),
        ("both", 1, 1),
    ],
)
def test_orders(tmp_path: Path, order: str, choices: int, ways: int) -> None:
    program = PROGRAM.replace("{shots: 4}", f"{{shots: 0, order: {order}}}")
    one = {
        "id": "x",
        "scenario": "s",
        "choices": [
            {"id": str(i), "text": f"t{i}", "labels": {"mercy": i, "order": i}}
            for i in range(choices)
        ],
    }
    loaded = only(load(write_world(tmp_path, [one, *cases(2)], program)), "regression")
    made = plan(loaded.program, loaded.cases[:1], loaded.program.targets[:2], Pool())
    assert len(made.model_jobs) == ways


def test_samples_are_separate_jobs_and_shuffled_apart(tmp_path: Path) -> None:
    program = PROGRAM.replace("{shots: 4}", "{shots: 0, samples: 8, order: shuffle}")
    loaded = only(load(write_world(tmp_path, cases(6), program)), "regression")
    made = plan(loaded.program, loaded.cases[:1], loaded.program.targets[:1], Pool())
    assert len(made.model_jobs) == 8
    shown = {
        tuple(c.text for c in made.jobs[k].inputs["scenario"].choices) for k in made.model_jobs
    }
    assert len(shown) > 1


def test_models_see_letters_not_ids(small: Loaded) -> None:
    made = planned(small)
    for key in made.model_jobs:
        shown: Scenario = made.jobs[key].inputs["scenario"]
        assert shown.id == ""
        assert [c.id for c in shown.choices] == list("ABCDE"[: len(shown.choices)])


def test_an_exemplar_that_changes_changes_only_what_it_reaches(small: Loaded) -> None:
    one = only(small, "regression", "baseline")
    other = list(one.pool)
    first = other[0]
    other[0] = first.model_copy(
        update={"labels": {k: {**by, "mercy": 0.3} for k, by in first.labels.items()}}
    )
    before = plan(one.program, one.cases, one.program.targets, pool_of(one.pool))
    after = plan(one.program, one.cases, one.program.targets, pool_of(other))
    changed = set(before.model_jobs) - set(after.model_jobs)
    attributes = {before.jobs[k].inputs.get("attribute") for k in changed}
    assert {a.name for a in attributes if a} == {"mercy"}
    assert not any(before.jobs[k].step.name == "pick" for k in changed)


def test_an_attribute_that_no_target_names_adds_no_job(small: Loaded) -> None:
    one = only(small, "regression")
    target = (Target(name="m", values={"mercy": 1.0}),)
    fewer = one.program.model_copy(update={"attributes": one.program.attributes[:1]})
    checked = type(one.checked)(fewer, one.checked.source)
    assert list(planned(one, target).jobs) == list(
        planned(Loaded(checked, one.cases, one.pool), target).jobs
    )


def test_printing_a_plan_says_what_sharing_saves(small: Loaded) -> None:
    made = planned(only(small, "regression"))
    assert str(made) == f"{made.asked:,} asked for, {len(made.model_jobs):,} to run"
    assert made.asked > len(made.model_jobs)


def test_fifty_two_targets_on_two_response_items_cost_one_pass(tmp_path: Path) -> None:
    """500 items, five attributes, 52 targets: 2,500 jobs, as many as for one target."""
    names = [f"q{i}" for i in range(5)]
    attributes = "version: 1\nset: two\nabout: Five.\nattributes:\n" + "".join(
        f"  {n}: {{about: a {n}, high: h, low: l}}\n" for n in names
    )
    program = PROGRAM.replace("{shots: 4}", "{shots: 0, order: shuffle}")
    items = [
        {
            "id": f"i{i}",
            "scenario": f"prompt {i}",
            "choices": [
                {"id": c, "text": f"response {c} to {i}", "labels": dict.fromkeys(names, i % 10)}
                for c in "ab"
            ],
        }
        for i in range(500)
    ]
    loaded = only(load(write_world(tmp_path, items, program, attributes)), "regression")
    targets = tuple(
        Target(name=f"t{i}", values={n: (i * (k + 1) % 5) / 4 for k, n in enumerate(names)})
        for i in range(52)
    )
    made = plan(loaded.program, loaded.cases, targets, Pool())
    assert len(made.model_jobs) == 2_500
    assert made.asked == 52 * 2_500
    assert len(made.questions) == 52 * 500


@pytest.mark.parametrize(("cases_more", "targets_more"), [(4, 1), (1, 4)])
def test_a_plan_grows_as_what_is_asked_does(
    tmp_path: Path, cases_more: int, targets_more: int
) -> None:
    """Four times the cases, or the targets, are four times the work, and no more."""
    program = PROGRAM.replace("{shots: 4}", "{shots: 0}")
    loaded = only(load(write_world(tmp_path, cases(6), program)), "regression")

    def lines(n: int, m: int, most: float = float("inf")) -> int:
        many = tuple(
            Case(
                scenario=Scenario(
                    id=f"s{i}",
                    text=f"s{i}",
                    choices=(Choice(id="a", text=f"a{i}"), Choice(id="b", text=f"b{i}")),
                )
            )
            for i in range(n)
        )
        targets = tuple(
            Target(name=f"t{i}", values={"mercy": i / m, "order": 1.0}) for i in range(m)
        )
        with counted(most) as work:
            made = plan(loaded.program, many, targets, Pool())
        assert made.asked == n * 2 * m
        return work.lines

    once = lines(200, 20)
    assert lines(200 * cases_more, 20 * targets_more, 5 * once) <= 4.1 * once
