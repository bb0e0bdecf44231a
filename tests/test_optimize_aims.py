"""Accuracy weighed against costs, and costs that have a limit: what is tried, chosen and said."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner, Result

from align_dsl.commands import cli
from align_dsl.errors import PlanError
from align_dsl.optimize.aims import Aims, aims_noted, costs, planned
from align_dsl.optimize.choose import allowed, choose, incumbent
from align_dsl.optimize.done import Done
from align_dsl.optimize.effects import front
from align_dsl.optimize.journal import open_storage
from align_dsl.optimize.propose import Tried, propose
from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.sampler import POPULATION
from align_dsl.optimize.sat import Sat, Spent
from align_dsl.optimize.space import written
from align_dsl.optimize.studies import find
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.untried import every
from align_dsl.optimize.verdict import TOLERATED, compare, noted
from align_dsl.pipeline import Changes
from align_dsl.records.store import Store
from tests.test_optimize_study import CLI
from tests.worlds import ATTRIBUTES, write_world

PROGRAM = """version: 1
program: small
about: What is asked more often costs more.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.5, test: 0.5}}
targets:
  - {name: kind, values: {mercy: high, order: low}}
  - {name: stern, values: {mercy: low, order: high}}
deciders:
  mine: {use: comparative_regression, with: {samples: 2}}
model: scripted:script.jsonl
optimize:
  decider: mine
  trials: 14
  space: {samples: [1, 2, 3], order: [shuffle, both], norm: [l1, l2], shots: [0, 1, 2, 3]}
"""
BOTH = PROGRAM + "  objectives: [accuracy, calls]\n"
LIMITED = PROGRAM + "  at_most: {calls: 1.5}\n"
NAMES = ("mercy", "order")


def world(folder: Path, program: str = PROGRAM, n: int = 24) -> Path:
    """Ratings that are right more often than not, and the same however often one asks."""
    dice, cases, script = random.Random(3), [], []
    for i in range(n):
        text = f"situation {i}"
        labels = {c: {name: dice.randrange(11) for name in NAMES} for c in "abc"}
        choices = [{"id": c, "text": f"{c} of {i}", "labels": labels[c]} for c in "abc"]
        cases.append({"id": f"c{i}", "scenario": text, "choices": choices})
        for name in NAMES:
            ratings = {
                f"{c} of {i}": min(10, max(0, labels[c][name] + dice.randrange(-3, 4)))
                for c in "abc"
            }
            script.append({"scenario": text, "attribute": name, "ratings": ratings})
    path = write_world(folder, cases, program, ATTRIBUTES)
    (folder / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in script))
    file = folder / "programs" / "small.yaml"
    file.write_text(file.read_text().replace("scripted:", f"scripted:{folder}/"))
    return path


def run(folder: Path, path: Path, **options: Any) -> Outcome:
    pick = options.pop("pick", None)
    return optimize(Task(path, store=folder / ".align" / "align.db", **options), pick=pick)


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(w) for w in words])


def trials_of(folder: Path) -> list[tuple[object, ...]]:
    where = folder / ".align" / "study.log"
    with Study(where, find(where, "last")) as study:
        return [
            (d.slot, written(d.config), d.sat.marks, d.score, d.costs["calls"], dict(d.over))
            for d in study.done()
        ]


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("weighed")
    return folder, run(folder, world(folder, BOTH))


@pytest.fixture(scope="module")
def made(weighed: tuple[Path, Outcome]) -> Ready:
    folder, _ = weighed
    store = folder / ".align" / "align.db"
    return ready(Task(folder / "programs" / "small.yaml", store=store), Store.open(store))


# --- what a decision costs


def test_costs_are_what_is_needed_whether_it_was_known_or_not(made: Ready) -> None:
    """An attribute is asked about once for both targets: two jobs a case, two decisions."""
    once, thrice = {"samples": 1, "order": "shuffle"}, {"samples": 3, "order": "shuffle"}
    both = {"samples": 1, "order": "both"}
    for config, calls in ((once, 1.0), (thrice, 3.0), (both, 2.0)):
        fresh = made.train.sit_all({**config, "norm": "l2", "shots": 1})
        again = made.train.sit_all({**config, "norm": "l2", "shots": 1})
        assert again.spent.paid == 0
        assert costs(fresh)["calls"] == costs(again)["calls"] == calls
        assert costs(planned(made.train, {**config, "norm": "l2", "shots": 1}))["calls"] == calls


def test_a_limit_is_passed_by_a_share_of_it() -> None:
    aims = Aims(at_most={"calls": 2, "tokens": 100})
    assert aims.over({"calls": 3, "tokens": 50}) == {"calls": 0.5, "tokens": -0.5}
    assert aims.over({"calls": 2}) == {"calls": 0.0}
    assert Aims().over({"calls": 9}) == {}


# --- what is tried next


def test_the_vectors_are_told_and_nothing_is_pruned(weighed: tuple[Path, Outcome]) -> None:
    folder, outcome = weighed
    assert len(outcome.done) == 14
    assert not any(d.pruned for d in outcome.done)
    where = folder / ".align" / "study.log"
    read = optuna.load_study(study_name=find(where, "last"), storage=open_storage(where))
    assert [d.name for d in read.directions] == ["MAXIMIZE", "MINIMIZE"]
    told = {t.number: t.values for t in read.trials}
    assert told == {d.number: [d.score, d.costs["calls"]] for d in outcome.done}
    best = {(d.score, d.costs["calls"]) for d in front(outcome.done, ("accuracy", "calls"))}
    assert {tuple(t.values) for t in read.best_trials} == best  # Optuna's own front is ours


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "random"])
def test_the_same_vectors_give_the_same_batch(made: Ready, sampler: str) -> None:
    dice = random.Random(1)
    tried = [
        Tried(c, dice.random(), (dice.random(),), {"calls": dice.random() - 0.5})
        for c in list(every(made.space).values())[:20]
    ]
    options: dict[str, Any] = {"sampler": sampler, "seed": 3, "costs": 1}
    first = propose(made.space, tried, 4, batch=5, **options)
    assert len(first) == 4
    assert first == propose(made.space, list(tried), 4, batch=5, **options)
    assert not {written(c) for c in first} & {written(t.config) for t in tried}


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_samplers_learn_from_what_they_are_told(made: Ready, sampler: str) -> None:
    """More shots are better and cheaper here. A sampler is made anew for each batch, and must not
    begin anew with it."""
    wide = [
        replace(d, values=tuple(range(60))) if d.name == "shots" else d
        for d in made.space.dimensions
    ]
    space, dice = replace(made.space, dimensions=tuple(wide)), random.Random(0)
    drawn = list(every(space).values())
    tried = [
        Tried(c, c["shots"] / 60, (60.0 - c["shots"],)) for c in dice.sample(drawn, 3 * POPULATION)
    ]
    found = [
        c["shots"]
        for batch in range(30)
        for c in propose(space, tried, 1, sampler=sampler, seed=0, batch=batch, costs=1)
    ]
    seen = sorted(t.config["shots"] for t in tried)
    better = sum(shots >= seen[len(seen) * 3 // 4] for shots in found)
    assert better > len(found) / 2  # a quarter of what was told was that good


def test_what_breaks_a_limit_for_sure_is_not_proposed_while_there_is_other(made: Ready) -> None:
    def over(config: dict[str, Any]) -> dict[str, float]:
        return {"calls": float(config["shots"] - 1)}

    tried = [Tried(made.space.default, 0.5)]
    found = propose(made.space, tried, 99, sampler="tpe", seed=0, batch=1, over=over)
    within = [c for c in every(made.space).values() if c["shots"] <= 1]
    assert sorted(map(written, found)) == sorted(
        written(c) for c in within if c != made.space.default
    )


def test_a_sampler_that_would_forget_is_refused(made: Ready) -> None:
    with pytest.raises(PlanError, match="would learn nothing"):
        propose(made.space, [], 1, sampler="cmaes", seed=0, batch=0)


# --- what is killed goes the same way


def test_weighing_workers_come_to_what_one_comes_to(
    weighed: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run(tmp_path, world(tmp_path, BOTH), workers=2)
    assert [t[:-1] for t in trials_of(tmp_path)] == [t[:-1] for t in trials_of(weighed[0])]


def test_a_weighing_study_that_is_cut_anywhere_goes_on_to_the_same_end(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    program = BOTH + "  at_most: {calls: 2.5}\n"
    whole = run(quiet, world(quiet, program))
    wanted, log = trials_of(quiet), (quiet / ".align" / "study.log").read_bytes()
    dice = random.Random(2)
    for turn in range(2):
        torn = tmp_path / f"torn{turn}"
        shutil.copytree(quiet, torn)
        (torn / ".align" / "looks.jsonl").unlink(missing_ok=True)
        cut = log[: dice.randrange(len(log) // 8, len(log))]
        dead = cut.replace(f'"pid":{_pid()},'.encode(), b'"pid":4194304,')
        (torn / ".align" / "study.log").write_bytes(dead)
        again = run(torn, quiet / "programs" / "small.yaml")
        assert trials_of(torn) == wanted
        assert again.chosen is not None
        assert whole.chosen is not None
        assert again.chosen.done.config == whole.chosen.done.config


def _pid() -> int:
    import os

    return os.getpid()


def test_kill_9_of_a_weighing_study(tmp_path: Path) -> None:
    torn, quiet = tmp_path / "torn", tmp_path / "quiet"
    world(quiet, BOTH)
    shutil.copytree(quiet, torn)
    run(quiet, quiet / "programs" / "small.yaml")
    command = [*CLI, "optimize", "programs/small.yaml"]
    log = torn / ".align" / "study.log"
    with subprocess.Popen(command, cwd=torn, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            if log.exists() and log.stat().st_size > 9_000:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
    done = subprocess.run(command, cwd=torn, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert trials_of(torn) == trials_of(quiet)


# --- limits


def test_what_is_known_to_cost_too_much_is_never_paid(tmp_path: Path) -> None:
    outcome = run(tmp_path, world(tmp_path, LIMITED))
    default, *others = outcome.done
    assert default.costs["calls"] == 2.0
    assert not default.is_allowed
    assert default.score is not None  # all others are held against it
    assert others
    for one in others:
        assert one.is_allowed == (one.config.get("samples") == 1)
        if not one.is_allowed:
            assert one.sat.spent.paid == 0
            assert "a decision, and may need 1.5" in one.why
    assert outcome.chosen is not None
    assert outcome.chosen.done.is_allowed
    best = incumbent(outcome.done)
    assert best is not None
    assert best.is_allowed
    assert all(d.is_allowed for d in front(outcome.done))
    where = tmp_path / ".align" / "study.log"
    read = optuna.load_study(study_name=find(where, "last"), storage=open_storage(where))
    assert read.best_trial.constraints["calls"] <= 0  # Optuna's own tools heed it


def test_where_nothing_keeps_to_the_limit_it_says_so(tmp_path: Path) -> None:
    path = world(tmp_path, LIMITED.replace("1.5", "0.5"))
    said = invoke("optimize", path, "--store", tmp_path / ".align" / "align.db")
    assert said.exit_code == 0, said.output
    assert "the file's own settings need 2 calls a decision, and may need 0.5" in said.output
    assert "the default does not keep to `at_most`: a decision needs 2 calls" in said.output
    assert "nothing that was tried keeps to `at_most`" in said.output
    assert not (tmp_path / ".align" / "looks.jsonl").exists()
    assert not list(tmp_path.rglob("*.optimized.yaml"))


def test_a_sampler_that_knows_no_limits_is_named(tmp_path: Path) -> None:
    words = ("--store", tmp_path / ".align" / "align.db", "--sampler", "random", "--trials", "2")
    said = invoke("optimize", world(tmp_path, LIMITED), *words)
    assert "the sampler random knows nothing of limits" in said.output


def test_other_aims_are_another_study(made: Ready, tmp_path: Path) -> None:
    names = {made.study}
    for i, program in enumerate((PROGRAM, LIMITED, BOTH.replace("calls]", "tokens]"))):
        store = tmp_path / f"{i}" / "a.db"
        store.parent.mkdir()
        with Store.open(store) as opened:
            names.add(ready(Task(world(store.parent, program), store=store), opened).study)
    assert len(names) == 4


# --- what is chosen


def rows(
    made: Ready, *said: tuple[dict[str, Any], int, float], limit: float | None = None
) -> list[Done]:
    """(changes to the default, questions right, calls a decision), the default first."""
    n, found = len(made.train.asked), []
    for i, (config, right, calls) in enumerate(said):
        marks = "1" * right + "0" * (n - right)
        spent = Spent(calls=round(calls * 100), decisions=100)
        over = {} if limit is None else {"calls": calls / limit - 1}
        config = {**made.space.default, **config}
        one = Done(i, (i, 0), config, Sat(marks, spent), made.train.score(marks), False, 0.0)
        found.append(replace(one, over=over))
    return found


def test_the_cheapest_of_the_best_is_chosen_and_the_default_may_be_it(made: Ready) -> None:
    n = len(made.train.asked)
    dear, cheap, bad = ({"shots": k} for k in (3, 2, 1))
    done = rows(made, ({}, n // 2, 2), (dear, n, 5), (cheap, n - 1, 3), (bad, 2, 1))
    assert choose(made.train, made.space, done).done.number == 2
    done = rows(made, ({}, n - 1, 2), (dear, n, 5), (cheap, n - 1, 3))
    chosen = choose(made.train, made.space, done)
    assert chosen.is_default
    assert chosen.best.number == 1
    # as accurate as the default, and cheaper: that is enough
    done = rows(made, ({}, n - 1, 2), (dear, n, 5), (cheap, n - 1, 1))
    assert choose(made.train, made.space, done).done.number == 2


def test_what_is_over_a_limit_is_never_chosen(made: Ready) -> None:
    n = len(made.train.asked)
    good, fair = {"shots": 3}, {"shots": 2}
    done = rows(made, ({}, 4, 1), (good, n, 5), (fair, n // 2, 2), limit=3)
    assert [d.number for d in allowed(done)] == [0, 2]
    chosen = choose(made.train, made.space, done)
    assert chosen.done.number != 1
    assert chosen.best.number == 2
    with pytest.raises(PlanError, match="trial 1 does not keep to `at_most`"):
        choose(made.train, made.space, done, pick=1)
    with pytest.raises(PlanError, match="there is no trial 7"):
        choose(made.train, made.space, done, pick=7)
    # the default itself is over: the best of the others, though it be less accurate
    done = rows(made, ({}, n, 4), (good, n - 1, 5), (fair, n // 2, 2), limit=3)
    assert choose(made.train, made.space, done).done.number == 2


def test_the_front_is_that_of_the_objectives(made: Ready) -> None:
    done = rows(made, ({}, 5, 2), ({"shots": 1}, 5, 1), ({"shots": 2}, 9, 3), ({"shots": 3}, 8, 3))
    assert [d.number for d in front(done, ("accuracy", "calls"))] == [1, 2]
    assert [d.number for d in front(done, ("accuracy",))] == [2]


# --- the verdict


def test_cheaper_is_better_where_little_can_be_lost(made: Ready) -> None:
    exam, n = made.test, len(made.test.asked)
    dear, cheap = Spent(calls=4 * n, decisions=n), Spent(calls=n, decisions=n)
    same = compare(exam, Sat("1" * n, dear), Sat("1" * n, cheap))
    assert same.saves == ("calls",)
    assert not same.is_more_accurate
    assert same.each("calls") == (4.0, 1.0)
    # 12 cases that agree tell little: a bootstrap has no width here, and would be believed
    assert same.gain[1:] == (0.0, 0.0)
    assert same.loss > TOLERATED
    assert not same.is_better
    assert "may be lost" in same.why
    sure = replace(same, loss=0.03)
    assert sure.is_better
    assert sure.why == "fewer calls, and at most 3.0 points of accuracy lost"
    assert not replace(sure, breaks=("tokens",)).is_better
    assert compare(exam, Sat("1" * n, cheap), Sat("1" * n, dear)).saves == ()
    assert noted({"verdict": json.loads(json.dumps(_plain(sure)))}) == sure
    assert noted({}) is None


def _plain(verdict: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(verdict)


def test_more_groups_that_agree_make_a_smaller_loss() -> None:
    from align_dsl.optimize.verdict import _least

    bounds = [_least([0.0] * n, 1) for n in (3, 12, 60, 300)]
    assert bounds == sorted(bounds)
    assert bounds[0] < -0.3
    assert bounds[-1] > -0.01
    assert _least([0.0] * 60, 3) < _least([0.0] * 60, 1)  # a third look has to be surer
    # Agresti and Min's example of the formula: b = 3, c = 1 of n = 20
    gains = [1 / 20] * 3 + [-1 / 20] + [0.0] * 16
    assert _least(gains, 1) == pytest.approx(2 / 22 - 1.96 * (4 - 4 / 20 + 1) ** 0.5 / 22, abs=1e-3)


# --- the command line


def test_the_command_prints_the_front_and_the_rule(weighed: tuple[Path, Outcome]) -> None:
    folder, outcome = weighed
    words = (folder / "programs" / "small.yaml", "--store", folder / ".align" / "align.db")
    said = invoke("optimize", *words)
    assert said.exit_code == 0, said.output
    for part in (
        "accuracy and calls are weighed against each other, so nothing is pruned",
        "what nothing beats in accuracy and calls (train cases)",
        "the cheapest of those within a standard error of the best accuracy",
    ):
        assert part in said.output
    shown = invoke("studies", "show", "last", "--store", folder / ".align" / "align.db")
    assert "what nothing beats in accuracy, calls" in shown.output
    numbers = {d.number for d in front(outcome.done, ("accuracy", "calls"))}
    table = shown.output.rpartition("what nothing beats")[2]
    listed = {int(line.split()[0]) for line in table.splitlines() if line.strip()[:1].isdigit()}
    assert numbers <= listed
    explained = invoke("explain", "--optimize", *words)
    assert "so nothing is pruned" in explained.output


def test_who_picks_gets_that_one_and_the_truth_about_it(tmp_path: Path) -> None:
    path = world(tmp_path, BOTH)
    store = ("--store", tmp_path / ".align" / "align.db")
    done = run(tmp_path, path).done
    worst = min(allowed(done)[1:], key=lambda d: d.score or 0.0)
    said = invoke("optimize", path, *store, "--pick", worst.number)
    assert said.exit_code == 0, said.output
    assert f"chosen: trial {worst.number}, by --pick" in said.output
    assert "picked all the same, and written to" in said.output
    text = path.with_name("small.optimized.yaml").read_text()
    assert "picked from by hand" in text
    assert "calls" in text
    assert invoke("check", path.with_name("small.optimized.yaml")).exit_code == 0
    wrong = invoke("optimize", path, *store, "--pick", 99)
    assert isinstance(wrong.exception, PlanError) or wrong.exit_code == 2


def test_json_has_costs_and_front(tmp_path: Path) -> None:
    path, store = world(tmp_path, BOTH), tmp_path / ".align" / "align.db"
    said = invoke("optimize", path, "--json", "--store", store)
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    trials = [e for e in lines if e["event"] == "trial"]
    assert sorted(e["number"] for e in trials) == list(range(14))  # each once
    assert all(e["costs"]["calls"] > 0 for e in trials)
    assert {e["number"] for e in lines[-1]["front"]} <= {e["number"] for e in trials}


def test_costs_of_what_calls_nobody_are_doubted(tmp_path: Path) -> None:
    path = world(tmp_path, BOTH)
    store = tmp_path / ".align" / "align.db"
    task = Task(path, Changes(model="embedded"), store=store)
    assert {d.costs["calls"] for d in optimize(task).done} == {0.0}
    words = ("--model", "embedded", "--store", store)
    assert "all costs are 0" in invoke("optimize", path, *words).output


def test_facts_say_what_a_study_was_after(weighed: tuple[Path, Outcome]) -> None:
    where = weighed[0] / ".align" / "study.log"
    with Study(where, find(where, "last")) as study:
        assert aims_noted(study.facts()) == Aims(("accuracy", "calls"))
    assert aims_noted({}) == Aims()
