"""Studies as they are listed and shown: what came of each, and nothing written by looking."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from align_dsl import __version__
from align_dsl.commands.diff import _prompts, prompts
from align_dsl.engine.budget import Budget
from align_dsl.errors import BudgetError, PlanError
from align_dsl.optimize.done import Done
from align_dsl.optimize.looked import read
from align_dsl.optimize.row import states
from align_dsl.optimize.run import _note_chosen, optimize
from align_dsl.optimize.sat import Sat
from align_dsl.optimize.studies import find, studies
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task
from align_dsl.pipeline import Changes, load
from tests import test_optimize_page as paged
from tests.test_optimize import invoke, world
from tests.test_report import Page

GIVEN = {"default": {"shots": 0}, "created": "2026-01-02T03:04:05+00:00", "decider": "mine"}


def noted(folder: Path, **facts: Any) -> tuple[object, ...]:
    """A study with these facts, and how the command is told where it is."""
    with Study(folder / ".align" / "study.log", "small-mine-0") as study:
        for key, value in {**GIVEN, **facts}.items():
            study.note(key, value)
    return ("--store", folder / ".align" / "align.db")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, ""),
        ({"chosen": {"shots": 0}}, "not better"),
        ({"chosen": {"shots": 4}}, "no verdict yet"),
        ({"chosen": {"shots": 4}, "verdict": None}, "no verdict yet"),
        ({"chosen": {}, "default": {}, "method": "gepa"}, "not better"),
        ({"chosen": {"rate.demos": []}, "default": {}, "method": "gepa"}, "no verdict yet"),
    ],
)
def test_no_verdict_is_not_a_bad_one(facts: dict[str, Any], said: str, tmp_path: Path) -> None:
    where = noted(tmp_path, **facts)
    for command in (("studies", "ls"), ("studies", "show", "small-mine-0")):
        done = invoke(*command, *where)
        assert done.exit_code == 0, done.output
        words = " ".join(done.output.split())
        assert said in words
        for other in {"not better", "no verdict yet"} - {said}:
            assert other not in words


def test_who_looks_writes_nothing(tmp_path: Path) -> None:
    path, store = world(tmp_path), tmp_path / ".align" / "align.db"
    for seed in (0, 1, 2):
        optimize(Task(path, Changes(sets=(f"optimize.seed={seed}",)), store=store))
    log = tmp_path / ".align" / "study.log"
    before = log.read_bytes()
    for command in (("ls",), ("show", "last", "--trials"), ("show", "last", "--html", "x.html")):
        words = [str(tmp_path / w) if w == "x.html" else w for w in command]
        done = invoke("studies", *words, "--store", store)
        assert done.exit_code == 0, done.output
    assert log.read_bytes() == before
    found = read(log)
    assert len(found) == 3
    for one in found:
        assert one.train is not None
        assert one.tried == len(one.done) == 7
        with Study(log, one.name) as study:
            assert (study.facts(), study.done(), study.paid()) == (one.facts, one.done, one.paid)
    assert read(log, found[1].name)[0].facts == found[1].facts
    assert read(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_what_another_was_judged_to_be_is_forgotten(tmp_path: Path) -> None:
    with Study(tmp_path / "study.log", "one") as study:
        _note_chosen(study, {"shots": 4})
        study.note("verdict", {"winner": 1.0})
        _note_chosen(study, {"shots": 4}, picked=True)
        assert study.facts()["verdict"] == {"winner": 1.0}
        _note_chosen(study, {"shots": 8})
        assert study.facts()["verdict"] is None
        assert (study.facts()["chosen"], study.facts()["picked"]) == ({"shots": 8}, False)


# --- what DSPy found


def test_what_dspy_tried_is_told(tmp_path: Path) -> None:
    path, store = world(tmp_path), tmp_path / ".align" / "align.db"
    found = optimize(Task(path, store=store, method="bootstrap", trials=4)).found
    assert found is not None
    assert found.scores is not None
    (one,) = read(tmp_path / ".align" / "study.log")
    assert one.tried == found.candidates > 0
    assert one.train == found.scores
    before, after = (f"{100 * score:.1f}" for score in found.scores)
    listed = " ".join(invoke("studies", "ls", "--store", store).output.split())
    assert f"{found.candidates} {before} to {after} better" in listed
    shown = invoke("studies", "show", "last", "--store", store).output
    assert f"{found.candidates} candidates by BootstrapFewShotWithRandomSearch(" in shown
    assert f"train {before} % -> {after} % on DSPy's part" in shown
    assert "worked examples" in shown
    assert "0 whole" not in shown
    page = tmp_path / "x.html"
    assert invoke("studies", "show", "last", "--html", page, "--store", store).exit_code == 0
    text = Page(page.read_text()).text
    assert f"{found.candidates:,} candidates. On DSPy's part of the train cases" in text


def test_what_dspy_has_spent_before_its_end_is_told(tmp_path: Path) -> None:
    where = noted(
        tmp_path,
        method="gepa",
        sampler="gepa of DSPy",
        chosen={"rate.demos": [{"case": "c1"}]},
        default={},
        spent={"calls": 12, "tokens": 3400, "seconds": 5},
    )
    shown = invoke("studies", "show", "last", *where).output
    assert "gepa has not come to its end yet" in shown
    assert "12 calls, 3,400 tokens" in shown
    page = tmp_path / "x.html"
    assert invoke("studies", "show", "last", "--html", page, *where).exit_code == 0
    text = " ".join(Page(page.read_text()).text.split())
    assert "has not come to its end yet, and keeps no trials: gepa" in text
    assert "no verdict was given yet" in text
    noted(tmp_path, chosen={})
    assert invoke("studies", "show", "last", "--html", page, *where).exit_code == 0
    assert "DSPy came back with the decider as it was." in Page(page.read_text()).text


def test_there_is_no_trial_of_dspy_to_pick(tmp_path: Path) -> None:
    task = Task(world(tmp_path), store=tmp_path / ".align" / "align.db", method="bootstrap")
    with pytest.raises(PlanError, match=r"`method: bootstrap` keeps no trials to pick from"):
        optimize(task, pick=1)
    assert studies(task.where) == []


# --- what failed


def test_a_study_of_which_nothing_has_come_is_never_the_last(tmp_path: Path) -> None:
    path, store = world(tmp_path), tmp_path / ".align" / "align.db"
    log = ("--store", store)
    refused = invoke("optimize", path, "--method", "gepa", *log)  # `embedded` reads no instructions
    assert refused.exit_code != 0
    assert "no study has come to a trial" in invoke("studies", "ls", *log).output
    assert "nothing has come of any study" in str(invoke("studies", "show", "last", *log).exception)
    good = optimize(Task(path, store=store)).study
    assert invoke("optimize", path, "--method", "gepa", "--seed", 3, *log).exit_code != 0
    with pytest.raises(BudgetError):
        optimize(Task(path, Changes(seed=4), store=store, budget=Budget(seconds=0)))
    where = tmp_path / ".align" / "study.log"
    assert len(studies(where)) == 4
    assert find(where, "last") == good
    assert [one.name for one in read(where)] == [good]


def test_failures_of_a_trial_are_told() -> None:
    one = Done(3, (1, 0), {"shots": 1}, Sat("1f0f"), 0.25, False, 0.0)
    assert list(states(one)) == ["2 failed"]
    assert list(states(Done(0, (0, 0), {}, Sat("10"), 0.5, False, 0.0))) == ["default"]


def test_failures_of_a_verdict_are_on_the_page() -> None:
    from dataclasses import asdict

    told = asdict(paged.verdict(failed=(3, 1200)))
    text = " ".join(Page(paged.page(*paged.tiny(verdict=told))).text.split())
    assert "3 questions failed with the file's own settings and 1,200 with the chosen ones" in text
    plain = " ".join(Page(paged.page(*paged.tiny())).text.split())
    assert "questions failed" not in plain


# --- diff


def test_prompts_differ_in_the_order_in_which_they_are_asked(tmp_path: Path) -> None:
    path = world(tmp_path)
    names = [f"d{i}" for i in range(9)]
    deciders = "".join(f"  {n}: {{use: comparative_regression}}\n" for n in names)
    text = path.read_text().replace("  mine: {use: comparative_regression}\n", deciders)
    text = text.rpartition("optimize:")[0]
    path.write_text(text)
    other = path.with_name("other.yaml")
    other.write_text(text.replace("regression}", "regression, with: {shots: 2}}"))
    one, two = load(path), load(other)
    scenario = one.cases[0].scenario.id
    wanted = [at for at in _prompts(one, scenario) if at.startswith("d")]
    said = [line for line in prompts(one, two, scenario) if line.startswith("\n===")]
    assert len(said) == len(names)
    assert said == [f"\n=== {at}, scenario {scenario}" for at in wanted]


# --- how numbers are written

THINGS = "trial|call|time|case|question|setting|wording|candidate|configuration|block|token"
PLURAL_OF_ONE = re.compile(rf"(?<![\d.,])1 ({THINGS})s\b")
FRACTION = re.compile(r"(?<!p )(?<![\d.])[01]\.\d{2,}\b")  # 0.72, where people are to see 72.0 %


@pytest.mark.parametrize("options", [("--trials", 1), ("--trials", 3), ("--method", "bootstrap")])
def test_numbers_are_written_as_everywhere(options: tuple[object, ...], tmp_path: Path) -> None:
    path, log = world(tmp_path), ("--store", tmp_path / ".align" / "align.db")
    space = ("--set", "optimize.space={shots: [0, 8]}")
    said = invoke("optimize", path, *options, *space, *log).output
    assert " %" in said
    for command in (
        ("explain", "--optimize", path, *space),
        ("studies", "ls"),
        ("studies", "show", "last", "--trials"),
    ):
        done = invoke(*command, *log)
        assert done.exit_code == 0, done.output
        said += done.output
    for written in path.parent.glob("*.optimized.yaml"):
        said += written.read_text()
    assert PLURAL_OF_ONE.findall(said) == []
    assert FRACTION.findall(said.replace(__version__, "")) == []


def test_programs_are_told_shares(tmp_path: Path) -> None:
    """JSON keeps them as they are."""
    done = invoke("optimize", world(tmp_path), "--json", "--store", tmp_path / ".align" / "a.db")
    last = json.loads(done.stdout.splitlines()[-1])
    assert all(0 <= share <= 1 + 1e-9 for share in last["train"])
    assert 0 <= last["verdict"]["default"] < last["verdict"]["winner"] <= 1 + 1e-9
