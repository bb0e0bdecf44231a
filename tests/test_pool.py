"""Which cases may be shown as exemplars: none that is kept for the test, none that is decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_dsl.engine.split import part
from align_dsl.pipeline import Changes, Loaded, Selection, load, open_backends, plan_run, select
from align_dsl.types import Scenario
from tests.worlds import PROGRAM, cases, write_world

SPLIT = "path: cases.jsonl, split: {train: 0.4, test: 0.4}, cases: PART"


def world(folder: Path, cases_of: str) -> Loaded:
    text = PROGRAM.replace("path: cases.jsonl", SPLIT.replace("PART", cases_of))
    return load(write_world(folder, cases(30), text), Changes())


def ids(loaded: Loaded, wanted: str) -> set[str]:
    everything = load(Path(loaded.checked.source.file).absolute()).cases
    some = part(everything, loaded.program.data.split, wanted)  # type: ignore[arg-type]
    return {c.scenario.id for c in some}


def shown(loaded: Loaded) -> dict[str, set[str]]:
    """For each scenario that is decided, the texts of the exemplars beside it."""
    loaded = select(loaded, Selection(only=("regression",)))
    planned = plan_run(loaded, open_backends(loaded.program))
    found: dict[str, set[str]] = {}
    texts = {c.scenario.text: c.scenario.id for c in (*loaded.cases, *loaded.pool)}
    for question in planned.questions:
        found.setdefault(question.case.scenario.id, set())
    for job in planned.jobs.values():
        scenario = job.inputs.get("scenario")
        pool = job.inputs.get("pool")
        if isinstance(scenario, Scenario) and pool is not None:
            found[texts[scenario.text]] |= {e.scenario.id for e in pool.exemplars}
    return found


@pytest.mark.parametrize("cases_of", ["train", "test"])
def test_the_pool_of_a_part_is_the_train_part(cases_of: str, tmp_path: Path) -> None:
    loaded = world(tmp_path, cases_of)
    train = ids(loaded, "train")
    assert {c.scenario.id for c in loaded.pool} == train
    assert train.isdisjoint(ids(loaded, "test"))
    decided = select(loaded, Selection()).cases
    assert {c.scenario.id for c in decided} == ids(loaded, cases_of)


def test_the_pool_of_all_cases_is_all_of_them(tmp_path: Path) -> None:
    loaded = world(tmp_path, "all")
    assert {c.scenario.id for c in loaded.pool} == {c.scenario.id for c in loaded.cases}


def test_no_test_case_is_shown_while_train_cases_are_decided(tmp_path: Path) -> None:
    loaded = world(tmp_path, "train")
    test = ids(loaded, "test")
    beside = shown(loaded)
    assert beside
    assert all(some and some.isdisjoint(test) for some in beside.values())


def test_explain_says_where_exemplars_come_from(tmp_path: Path) -> None:
    from align_dsl.language.render import render_program

    for cases_of, said in (("all", "these cases"), ("train", "the train cases")):
        loaded = world(tmp_path / cases_of, cases_of)
        assert f"exemplars from: {said}" in render_program(loaded.checked)
