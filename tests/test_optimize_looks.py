"""Looks at test cases: which count as one, how sure they have to be, and what they may not see."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from align_dsl import pipeline
from align_dsl.engine.execute import Stop
from align_dsl.errors import BudgetError, CompileError
from align_dsl.optimize.looks import cases_of, level, looks, pair_of
from align_dsl.optimize.run import _end, begin, optimize
from align_dsl.optimize.sat import Sat
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.verdict import compare, give, noted
from align_dsl.optimize.workers import search_of
from align_dsl.pipeline import Changes, compile
from align_dsl.records.store import Store
from tests.test_optimize import PROGRAM, world

WINNER = {"shots": 8, "select": "similar"}
LINES = [
    {"split": "one", "pair": "a", "winner": 0.5},  # as older versions wrote them
    {"split": "one", "pair": "b", "cases": ["1", "2", "3", "4"]},
    {"split": "two", "pair": "a", "cases": ["3", "4", "5", "6"]},
    {"split": "three", "pair": "a", "cases": ["4", "5", "6", "7"]},
    {"split": "four", "pair": "a"},
]


def opened(
    path: Path, *sets: str, program: Callable[[str], str] = str, **changes: Any
) -> AbstractContextManager[Ready]:
    """The program, after changes to its text and to what a command line would say."""

    @contextmanager
    def made() -> Any:
        path.write_text(program(path.read_text()))
        decider = changes.pop("decider", None)
        store = path.parents[1] / ".align" / "align.db"
        task = Task(path, Changes(sets=sets, **changes), decider=decider, store=store)
        with Store.open(store) as opened:
            found = ready(task, opened)
            try:
                yield found
            finally:
                found.close()

    return made()


# --- which looks count


def test_looks_at_half_of_the_cases_count(tmp_path: Path) -> None:
    file = tmp_path / "looks.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES) + 'x\n[]\n{"split": "on')

    def found(split: str, *cases: str) -> list[str]:
        return [one["split"] for one in looks(file, split, cases)]

    assert found("one") == ["one", "one", "two"]  # whose cases the second look knows
    assert found("new", "1", "2", "3", "4") == ["one", "two"]
    assert found("new", "1", "2", "8", "9") == ["one"]
    assert found("new", "1", "8", "9", "0") == []
    assert found("new", "7") == ["three"]  # what lies within another has been seen with it
    assert found("four") == ["four"]
    assert found("four", "5") == ["two", "three", "four"]
    assert looks(tmp_path / "none", "one") == []


def test_another_split_of_the_same_cases_is_no_fresh_start(tmp_path: Path) -> None:
    path = world(tmp_path)
    found = []
    for share in ("{train: 0.5, test: 0.5}", "{train: 0.6, test: 0.4}"):
        with opened(path, f"data.split={share}") as made:
            found.append((give(made, WINNER).looks, cases_of(made), made.split))
    (first, whole, _), (second, part, split) = found
    assert (first, second) == (1, 2)
    assert set(part) < set(whole)
    assert len(looks(tmp_path / ".align" / "looks.jsonl", split)) == 2


def test_other_labels_make_no_other_cases(tmp_path: Path) -> None:
    path = world(tmp_path)
    with opened(path) as made:
        before = cases_of(made)
    cases = path.with_name("cases.jsonl")
    cases.write_text(cases.read_text().replace('"mercy": 9', '"mercy": 8'))
    with opened(path) as made:
        assert cases_of(made) == before


SAME: dict[str, dict[str, Any]] = {
    "again": {},
    "about": {"program": lambda text: text.replace("A poor start.", "A fine one.")},
    "the program's name": {"program": lambda text: text.replace("program: small", "program: tiny")},
    "the decider's name": {
        "program": lambda text: text.replace("mine", "yours"),
        "decider": "yours",
    },
    "how it was searched": {"sets": ("optimize.trials=3", "optimize.seed=4")},
    "a tolerance that is for nothing": {"sets": ("optimize.tolerance=0.2",)},
    "a metric": {"sets": ("metrics=[accuracy]",)},
    "how long one waits": {
        "program": lambda text: text + "models: {embedded: {use: embedded, timeout: 9}}\n"
    },
}
OTHER: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "targets": {"sets": ("targets={each: [low], of: [mercy]}",)},
    "the default": {"sets": ("deciders.mine.with={norm: l1}",)},
    "exemplars": {"sets": ("data.split={train: 0.4, test: 0.5}",)},
    "aims": {"sets": ("optimize.at_most={calls: 5}",)},
}


@pytest.mark.parametrize("what", SAME)
def test_the_same_comparison_is_the_same_pair(what: str, tmp_path: Path) -> None:
    path, said = world(tmp_path), dict(SAME[what])
    with opened(path) as made:
        before = pair_of(made, WINNER)
    with opened(path, *said.pop("sets", ()), **said) as made:
        assert pair_of(made, WINNER) == before


@pytest.mark.parametrize("what", OTHER)
def test_another_comparison_is_another_pair(what: str, tmp_path: Path) -> None:
    path, said = world(tmp_path), dict(OTHER[what])
    with opened(path) as made:
        before = pair_of(made, WINNER)
        assert pair_of(made, {**WINNER, "shots": 4}) != before
    with opened(path, *said.pop("sets", ()), **said) as made:
        assert pair_of(made, WINNER) != before


def test_models_prompts_and_what_counts_are_part_of_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pairs = world(tmp_path), set()
    for name in ("a", "b"):
        script = tmp_path / f"{name}.jsonl"
        script.write_text('{"ratings": {}}\n')
        with opened(path, model=f"scripted:{script}") as made:
            pairs.add(pair_of(made, WINNER))
    with opened(path, "optimize.objectives=[accuracy, calls]") as made:
        pairs.add(pair_of(made, WINNER))
    both = ("optimize.objectives=[accuracy, calls]", "optimize.tolerance=0.1")
    with opened(path, *both) as made:
        pairs.add(pair_of(made, WINNER))
        monkeypatch.setattr(pipeline, "prompts_version", lambda: "other words")
        pairs.add(pair_of(made, WINNER))
    assert len(pairs) == 5


def test_who_changes_the_seed_looks_again(tmp_path: Path) -> None:
    path, counted = world(tmp_path), []
    for seed in (0, 1, 2, 1, 0):
        task = Task(path, Changes(seed=seed), store=tmp_path / ".align" / "align.db")
        verdict = optimize(task).verdict
        assert verdict is not None
        counted.append(verdict.looks)
    assert counted == [1, 2, 3, 2, 1]


# --- how sure they have to be


def test_all_looks_together_are_bounded() -> None:
    assert level(1) == 0.05
    assert level(1, 0.01) == 0.01
    assert level(2) == pytest.approx(0.05 / 3)
    assert 0.099 < sum(level(look) for look in range(1, 10_000)) < 0.1


def test_a_later_look_has_to_be_surer_and_can_be(tmp_path: Path) -> None:
    with opened(world(tmp_path)) as made:
        n = len(made.test.asked)
        worse, better = Sat("0" * n), Sat("1" * (n - 4) + "0" * 4)
        once, often = (compare(made.test, worse, better, k) for k in (1, 60))
        assert (once.level, often.level) == (0.05, level(60))
        assert often.sure[1] < once.sure[1]
        assert often.is_better  # p may be 0.00003 at most, so it takes draws enough to come there
        six = replace(better, others=(better.marks,) * 5)
        assert compare(made.test, worse, six, 3).level == level(3, 0.01)


# --- what nobody may have seen


def test_winners_of_other_test_cases_are_not_tried_first(tmp_path: Path) -> None:
    path, store = world(tmp_path), tmp_path / ".align" / "align.db"
    assert optimize(Task(path, store=store)).is_better
    for sets, n in ((("data.split.seed=1",), 0), (("optimize.seed=7",), 1)):
        with opened(path, *sets) as made, Study(made.task.where, made.study) as study:
            begin(made, study)
            assert len(study.facts()["warm"]) == n


def test_a_warm_trial_never_passes_for_the_default(tmp_path: Path) -> None:
    """Two workers; the budget was spent while one of them was at the default."""
    with opened(world(tmp_path)) as made, Study(made.task.where, made.study) as study:
        begin(made, study)
        study.enqueue(0, 2, {0: made.space.default, 1: WINNER}, made.space)
        default, warm = study.claim(), study.claim()
        assert default is not None
        assert warm is not None
        marks = "1" * len(made.train.asked)
        study.finish(warm, Sat(marks), [made.train.score(marks)], False, 0.0)
        study.give_back(default, "budget")
        search = search_of(made, study, Stop())
        search.ended = "the budget of 9 calls is spent"
        with pytest.raises(BudgetError, match="spent before the default was tried"):
            _end(made, study, search, tmp_path / "x.yaml", Stop(), None)
        assert "chosen" not in study.facts()


# --- what may be lost, and what failed


def test_the_tolerance_is_the_file_s(tmp_path: Path) -> None:
    path = world(tmp_path, PROGRAM.replace("trials: 8", "trials: 8, at_most: {calls: 9}"))
    for sets, tolerance in (((), 0.05), (("optimize.tolerance=0.2",), 0.2)):
        with opened(path, *sets) as made:
            n = len(made.test.asked)
            found = compare(made.test, Sat("1" * n), Sat("1" * n))
        assert found.tolerance == tolerance
        cheap = replace(found, saves=("calls",), loss=0.1)
        assert cheap.is_better == (tolerance > 0.1)
        if not cheap.is_better:
            assert cheap.why.endswith("and 5 are the most that is put up with")
    assert not replace(cheap, tolerance=0.0, loss=0.0).is_better
    with pytest.raises(CompileError, match="tolerance"):
        compile(path, Changes(sets=("optimize.tolerance=0.6",)))


def test_a_usual_tolerance_changes_no_digest(tmp_path: Path) -> None:
    path = world(tmp_path)
    plain, said, other = (
        compile(path, Changes(sets=tuple(f"optimize.tolerance={t}" for t in some))).program
        for some in ((), (0.05,), (0.2,))
    )
    assert plain.digest() == said.digest() != other.digest()
    assert plain.optimize is not None
    assert "tolerance" not in plain.optimize.model_dump()


def test_notes_of_older_versions_mean_what_they_meant(tmp_path: Path) -> None:
    with opened(world(tmp_path)) as made:
        n = len(made.test.asked)
        old = asdict(compare(made.test, Sat("0" * n), Sat("1" * n), 2))
    for key in ("level", "tolerance", "failed"):
        del old[key]
    found = noted({"verdict": {**old, "p": 0.02}})
    assert found is not None
    assert (found.level, found.tolerance, found.failed) == (0.025, 0.05, (0, 0))
    assert found.is_better  # it was written then, and so it is told
    now = noted({"verdict": {**old, "p": 0.02, "level": level(2)}})
    assert now is not None
    assert not now.is_better


def test_what_failed_is_counted(tmp_path: Path) -> None:
    from align_dsl.commands.outcome import judged
    from align_dsl.optimize.aims import Aims
    from align_dsl.optimize.provenance import _of_test

    with opened(world(tmp_path)) as made:
        n = len(made.test.asked)
        found = compare(made.test, Sat("f" + "1" * (n - 1)), Sat("ff" + "0" * (n - 2)))
        told = "\n".join(_of_test(made, found))
    assert found.failed == (1, 2)
    assert f"1 and 2 of {n} questions failed" in told
    said = "\n".join(judged(found, Aims()))
    assert "1 question failed with the default, 2 with the winner; they count as wrong" in said
    assert "failed" not in "\n".join(judged(replace(found, failed=(0, 0)), Aims()))
