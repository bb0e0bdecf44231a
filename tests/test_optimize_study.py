"""What is tried and kept: the space, the order of things, and what survives being killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from math import log
from pathlib import Path

import optuna
import pytest

from align_dsl.engine.execute import Stop
from align_dsl.errors import PlanError, StoreError
from align_dsl.optimize.choose import evidence, hopeless
from align_dsl.optimize.claimant import me
from align_dsl.optimize.done import Done
from align_dsl.optimize.effects import effects, front
from align_dsl.optimize.journal import heal, open_storage
from align_dsl.optimize.propose import Tried, propose
from align_dsl.optimize.run import begin, optimize
from align_dsl.optimize.sat import Sat, Spent
from align_dsl.optimize.space import Space, written
from align_dsl.optimize.studies import find
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.untried import every
from align_dsl.optimize.workers import search_of
from align_dsl.pipeline import Changes
from align_dsl.records.store import Store
from tests.test_optimize import PROGRAM, world

CLI = [sys.executable, "-m", "align_dsl"]
WIDE = PROGRAM.replace("[0, 1, 4, 8]", "{low: 0, high: 9}").replace("trials: 8", "trials: 14")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Ready]:
    path = world(tmp_path, WIDE)
    with Store.open(tmp_path / ".align" / "align.db") as store:
        found = ready(Task(path, store=tmp_path / ".align" / "align.db"), store)
        yield found
        found.close()


def space_of(folder: Path, optimize: str, decider: str = "{use: comparative_regression}") -> Space:
    program = PROGRAM.rpartition("optimize:")[0] + f"optimize: {optimize}\n"
    path = world(folder, program.replace("{use: comparative_regression}", decider))
    with Store.open(folder / "a.db") as store:
        return ready(Task(path, store=folder / "a.db"), store).space


# --- the space


def test_the_space_is_read_off_the_decider(tmp_path: Path) -> None:
    space = space_of(tmp_path, "{decider: mine}")
    found = {d.name: d.values for d in space.dimensions}
    # 20 train cases: 20 exemplars are all there are; embedded reads no order and no wording
    assert found == {
        "shots": (0, 1, 2, 5, 10, 20),
        "select": ("similar", "stratified", "diverse", "random"),
    }
    assert space.default == {"shots": 0}
    assert len(every(space)) == 1 + 5 * 4


def test_a_model_that_reads_prompts_has_more_that_varies(tmp_path: Path) -> None:
    path = world(
        tmp_path, PROGRAM.replace(", space: {shots: [0, 1, 4, 8], select: [similar, random]}", "")
    )
    script = tmp_path / "s.jsonl"
    script.write_text("{}\n")
    with Store.open(tmp_path / "a.db") as store:
        task = Task(path, Changes(model=f"scripted:{script}"), store=tmp_path / "a.db")
        names = [d.name for d in ready(task, store).space.dimensions]
    assert "order" in names
    assert "samples" not in names  # they would all be alike


def test_the_default_stays_in_a_declared_space(tmp_path: Path) -> None:
    space = space_of(tmp_path, "{decider: mine, space: {shots: [3, 6]}}")
    assert [d.values for d in space.dimensions] == [(0, 3, 6)]


def test_what_does_nothing_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    space = space_of(tmp_path, "{decider: mine, space: {shots: [0, 2], select: [similar, random]}}")
    assert space.canonical({"shots": 0, "select": "random"}) == {"shots": 0}
    assert space.canonical({"shots": 2, "select": "random"}) == {"shots": 2, "select": "random"}
    off = space_of(tmp_path / "b", "{decider: mine, space: {select: [similar, random]}}")
    assert off.default == {}


def test_every_configuration_is_a_program_that_compiles(tmp_path: Path) -> None:
    own = "{use: comparative_regression, with: {norm: l1}}"
    wanted = "{decider: mine, space: {shots: [0, 2], recall.seed: [0, 5]}}"
    space = space_of(tmp_path, wanted, own)
    for config in every(space).values():
        decider = space.program(config).deciders[0]
        assert decider.params["shots"] == config["shots"]
        assert decider.step("recall").params["seed"] == config.get("recall.seed", 0)
        assert decider.decide.params["norm"] == "l1"


# --- what is tried next


def test_the_same_trials_give_the_same_batch_and_nothing_twice(made: Ready) -> None:
    space = made.space
    tried = [Tried(space.default, 0.5)]
    for batch in range(1, 5):
        dice = random.Random(batch)
        first = propose(space, tried, 4, sampler="tpe", seed=3, batch=batch)
        assert first == propose(space, list(tried), 4, sampler="tpe", seed=3, batch=batch)
        tried += [Tried(c, dice.random()) for c in first]
    keys = [written(t.config) for t in tried]
    assert len(set(keys)) == len(keys) == 17
    rest = propose(space, tried, 99, sampler="tpe", seed=3, batch=9)
    assert len(keys) + len(rest) == len(every(space)) == 19
    assert (
        propose(space, [*tried, *(Tried(c, 0.0) for c in rest)], 4, sampler="tpe", seed=3, batch=10)
        == []
    )


@pytest.mark.parametrize("sampler", ["random", "TPESampler", "qmc", "nsgaii", "bruteforce"])
def test_samplers_go_by_name(made: Ready, sampler: str) -> None:
    assert len(propose(made.space, [], 3, sampler=sampler, seed=0, batch=0)) == 3


def test_an_unknown_sampler_is_named(made: Ready) -> None:
    with pytest.raises(PlanError, match="did you mean `random`"):
        propose(made.space, [], 1, sampler="randon", seed=0, batch=0)


def test_pruning_takes_more_than_bad_luck(made: Ready) -> None:
    n = len(made.train.asked)
    assert not hopeless(made.train, "1" * n, "1" * n)
    assert not hopeless(made.train, "1" * n, "0" * n)
    assert hopeless(made.train, "0" * n, "1" * n)
    assert not hopeless(made.train, "0" * 4, "1" * 4)


@pytest.mark.parametrize("p", [0.05, 0.2])
def test_a_fair_coin_seldom_looks_unfair_however_often_one_looks(p: float) -> None:
    dice, fooled = random.Random(5), 0
    for _ in range(1000):
        won = 0
        for n in range(1, 101):
            won += dice.random() < 0.5
            if evidence(won, n - won) >= -log(p):
                fooled += 1
                break
    assert fooled / 1000 <= p
    assert evidence(0, 20) == evidence(20, 0) > -log(0.001)


# --- what is kept


def trials_of(folder: Path) -> list[tuple[object, ...]]:
    where = folder / ".align" / "study.log"
    return [
        (d.slot, written(d.config), d.sat.marks, d.score, d.pruned)
        for d in Study(where, find(where, "last")).done()
    ]


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "study.log"
    study = Study(log, "one")
    study.note("a", 1)
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"op_code": 2, "wor')
    study.note("b", 2)  # appends; without the cure nobody could read the file again
    assert Study(log, "one").facts() == {"a": 1, "b": 2}
    log.write_bytes(log.read_bytes() + b"x" * 200_000)
    assert heal(log) == 200_000
    assert heal(log) == 0
    assert heal(tmp_path / "none") == 0
    log.write_bytes(b'{"half": \n' + whole)
    with pytest.raises(StoreError, match="is damaged"):
        open_storage(log)


def test_a_study_that_is_cut_anywhere_goes_on_to_the_same_end(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    path = world(quiet, WIDE)
    whole = optimize(Task(path, store=quiet / ".align" / "align.db"))
    wanted, log = trials_of(quiet), (quiet / ".align" / "study.log").read_bytes()
    dice = random.Random(1)
    for turn in range(3):
        torn = tmp_path / f"torn{turn}"
        shutil.copytree(quiet, torn)
        (torn / ".align" / "looks.jsonl").unlink()
        (torn / ".align" / "study.log").write_bytes(log[: dice.randrange(len(log) // 8, len(log))])
        _nobody_is_alive(torn)
        task = Task(torn / "programs" / "small.yaml", store=torn / ".align" / "align.db")
        again = optimize(task)
        assert trials_of(torn) == wanted
        assert again.verdict == whole.verdict


def _nobody_is_alive(folder: Path) -> None:
    """What this process had claimed counts as claimed by one that died."""
    log = folder / ".align" / "study.log"
    log.write_text(log.read_text().replace(f'"pid":{os.getpid()},', '"pid":4194304,'))


def test_what_a_dead_worker_had_is_given_to_another(made: Ready) -> None:
    study = Study(made.task.where, made.study)
    begin(made, study)
    search = search_of(made, study, Stop())
    search._prepare()
    lost = study.claim()
    assert lost is not None
    assert study.claim() is None
    assert study.fail_stale() == 0  # it is ours, and we live
    study.storage.set_trial_user_attr(lost._trial_id, "worker", {**me(), "pid": 2**22})
    assert study.fail_stale() == 1
    search._prepare()
    found = study.claim()
    assert found is not None
    assert found.user_attrs["config"] == lost.user_attrs["config"]
    assert found.number != lost.number
    # the dead may rise: what it brings is not taken
    study.finish(lost, Sat("1"), 1.0, False, 0.0)
    assert study.done() == []


def test_two_that_begin_the_same_batch_at_once_do_it_once(made: Ready) -> None:
    study = Study(made.task.where, made.study)
    for _ in range(2):
        study.enqueue(0, 1, {0: made.space.default}, made.space)
    assert study.claim() is not None
    assert study.claim() is None
    assert [t.state.name for t in study.trials()] == ["RUNNING", "FAIL"]


def test_workers_come_to_what_one_comes_to(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        path = world(tmp_path / name, WIDE)
        optimize(Task(path, store=tmp_path / name / ".align" / "align.db", workers=workers))
    assert trials_of(tmp_path / "one") == trials_of(tmp_path / "two")


def test_kill_9_and_the_same_command_goes_on(tmp_path: Path) -> None:
    quiet, torn = tmp_path / "quiet", tmp_path / "torn"
    optimize(Task(world(quiet, WIDE), store=quiet / ".align" / "align.db"))
    world(torn, WIDE)
    command = [*CLI, "optimize", "programs/small.yaml"]
    log = torn / ".align" / "study.log"
    for size in (9_000,):
        with subprocess.Popen(command, cwd=torn, stderr=subprocess.DEVNULL) as process:
            end = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < end:
                if log.exists() and log.stat().st_size > size:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.005)
    done = subprocess.run(command, cwd=torn, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert trials_of(torn) == trials_of(quiet)


def test_the_best_of_an_earlier_study_comes_first(tmp_path: Path) -> None:
    path = world(tmp_path, PROGRAM)
    task = Task(path, store=tmp_path / ".align" / "align.db")
    first = optimize(task)
    assert first.chosen is not None
    second = optimize(Task(path, Changes(sets=("optimize.seed=7",)), store=task.store))
    assert second.study != first.study
    assert [d.config for d in second.done[:2]] == [second.done[0].config, first.chosen.done.config]


def test_cached_answers_are_not_paid_twice(made: Ready) -> None:
    config = {"shots": 4, "select": "similar"}
    exam = made.train
    first = exam.sit_all(config)
    before = exam.store.known([])
    again = exam.sit_all(config)
    assert again.marks == first.marks
    assert before == {}
    for block in range(len(exam.blocks)):
        jobs = exam.plan(config, block).model_jobs
        assert exam.store.known(jobs).keys() == set(jobs)


# --- what each setting does


def done(number: int, config: dict[str, object], marks: str, tokens: int = 0) -> Done:
    score = marks.count("1") / len(marks)
    return Done(number, (number, 0), config, Sat(marks, Spent(tokens=tokens)), score, False, 0.0)


def test_effects_are_told_apart() -> None:
    """One setting does all, and was tried together with the other more often than not."""
    facts = {"groups": [f"g{i}" for i in range(10)], "weights": [0.1] * 10}
    rows = []
    for i, (good, other) in enumerate([(1, "x"), (1, "x"), (1, "y"), (0, "y"), (0, "y"), (0, "x")]):
        rows.append(done(i, {"good": good, "other": other}, "1111111100" if good else "0000111100"))
    found = {(e.setting, e.value): e for e in effects(rows, facts)}
    one, none = found["good", "1"].gain, found["other", "x"].gain
    assert one is not None
    assert none is not None
    assert one.value == pytest.approx(0.2)
    assert one.low > 0
    assert none.value == pytest.approx(0, abs=1e-9)
    assert effects([], facts) == []


def test_the_front_is_what_nothing_beats() -> None:
    rows = [
        done(0, {}, "10", 10),
        done(1, {}, "11", 20),
        done(2, {}, "10", 20),
        done(3, {}, "00", 5),
        done(4, {}, "11", 20),
    ]
    assert [d.number for d in front(rows)] == [3, 0, 1]


def test_optuna_itself_can_read_the_study(made: Ready) -> None:
    """So that optuna-dashboard and Optuna's own tools work on it."""
    study = Study(made.task.where, made.study)
    begin(made, study)
    search_of(made, study, Stop()).work()
    read = optuna.load_study(study_name=made.study, storage=open_storage(made.task.where))
    assert read.best_value == max(d.score or 0 for d in study.done() if not d.pruned)
    assert set(read.best_params) <= {"shots", "select"}
