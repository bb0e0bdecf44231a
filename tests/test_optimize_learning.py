"""DSPy's optimizers beside others who are at it, when they are stopped, and on a real model."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from align_dsl.algorithms.rate_together import INSTRUCTIONS
from align_dsl.engine.execute import Stop
from align_dsl.optimize.run import optimize
from align_dsl.optimize.stock.memory import Memory
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task, ready
from align_dsl.pipeline import compile
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
from tests.models import TRAINED
from tests.models import world as closed
from tests.servers.llama import Llama
from tests.servers.recorder import Asked, Recorder, Reply, lowest
from tests.test_optimize_stock import scripted

CLI = [sys.executable, "-m", "align_dsl", "optimize"]
MANY = 30


def slow(folder: Path, seconds: float = 0.02) -> Path:
    """A scripted model that takes its time."""
    path, answers = scripted(folder), folder / "answers.jsonl"
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    lines = [line if "says" in line else {**line, "seconds": seconds} for line in lines]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def started(path: Path, *words: object) -> subprocess.Popen[str]:
    store = path.parents[1] / ".align" / "align.db"
    said = [*CLI, path, "--store", store, *words]
    return subprocess.Popen(
        [str(word) for word in said],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_held(folder: Path) -> bool:
    """Whether some process is at a study."""
    for lock in folder.glob("study.log.small-*.lock"):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False


# --- two at once


def test_a_second_process_is_told_that_there_is_a_first(tmp_path: Path) -> None:
    path, folder = slow(tmp_path, 0.5), tmp_path / ".align"
    words = ("--method", "gepa", "--trials", 5)
    first = started(path, *words)
    until(lambda: is_held(folder))
    second = started(path, *words)
    _, said = second.communicate()
    assert first.poll() is None
    assert second.returncode == 2
    assert "error: another process is at the study small-mine-" in said
    first.kill()
    first.communicate()
    assert not is_held(folder)  # the dead hold nothing


def ask_all(store: Path, log: Path, gate: Any) -> None:
    with Store.open(store) as opened:
        memory = Memory(opened, Stop())
        gate.wait()
        for n in range(MANY):

            def ask(n: int = n) -> Answer:
                with log.open("a") as file:
                    file.write(f"{n}\n")
                time.sleep(0.01)
                return Answer(key=f"k{n}", output=n, calls=1)

            assert memory.answer(f"k{n}", ask).output == n


def test_two_processes_on_one_store_ask_nothing_twice(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    gate, log = spawn.Barrier(2), tmp_path / "log"
    Store.open(tmp_path / "a.db").close()
    both = [spawn.Process(target=ask_all, args=(tmp_path / "a.db", log, gate)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
        assert one.exitcode == 0
    assert sorted(log.read_text().split()) == sorted(str(n) for n in range(MANY))


def learn_with(task: Task, gate: Any) -> None:
    with Store.open(task.store) as store:
        ready(task, store).close()  # all is imported
    gate.wait()
    optimize(task)


def test_what_two_have_spent_on_a_shared_study_is_added_up(tmp_path: Path) -> None:
    """A database has no lock: here the store sees to it that they share the work."""
    task = Task(
        slow(tmp_path, 0.03),
        method="bootstrap",
        trials=4,
        store=tmp_path / "align.db",
        storage=f"sqlite:///{tmp_path / 'study.db'}",
    )
    with Store.open(task.store) as store:
        made = ready(task, store)
        Study(task.storage or "", made.study).close()
    spawn = multiprocessing.get_context("spawn")
    gate = spawn.Barrier(2)
    both = [spawn.Process(target=learn_with, args=(task, gate)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
        assert one.exitcode == 0
    with sqlite3.connect(task.store) as db:
        ((answers,),) = db.execute("SELECT count(*) FROM answers").fetchall()
    with Study(task.storage or "", made.study) as study:
        assert study.paid()[0] == answers


# --- stopped by a person


def rating(asked: Asked) -> Reply:
    """The lowest number for everything; and a text where one is wanted."""
    said = asked.json
    if "response_format" in said:
        return Reply(json.dumps(lowest(asked.schema)), delay=0.02)
    return Reply(f"Judge anew, by {len(said['messages'][-1]['content'])} things.", delay=0.02)


def test_ctrl_c_and_again_pays_nothing_twice(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    with Recorder(rating) as server:
        use = f"{{use: openai/tiny, endpoint: '{server.url}/v1', concurrency: 4}}"
        text = path.read_text().replace(f"scripted:{tmp_path / 'answers.jsonl'}", "tiny")
        path.write_text(f"{text}models: {{tiny: {use}}}\n")
        words = ("--method", "gepa", "--trials", 2)
        first = started(path, *words)
        until(lambda: len(server.asked) > 12)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate()
        assert first.returncode == 130, said
        assert "all is saved; to go on: align-dsl optimize " in said
        asked = len(server.asked)
        second = started(path, *words)
        _, said = second.communicate()
        assert second.returncode == 0, said
        assert len(server.asked) > asked
        assert len({one.body for one in server.asked}) == len(server.asked)


# --- a real model


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    os.environ["OMP_NUM_THREADS"] = "1"
    with Llama(TRAINED) as server:
        yield server


@pytest.mark.parametrize("method", ["search", "bootstrap", "mipro", "gepa"])
def test_a_real_model_gets_the_words_that_it_knows(
    method: str, llama: Llama, tmp_path: Path
) -> None:
    """It has learnt by heart what it is asked in the shipped words. Without them it guesses, and
    it has never seen a worked example."""
    writer = tmp_path / "writer.jsonl"
    writer.write_text(json.dumps({"says": INSTRUCTIONS}) + "\n")
    rate = "{name: rate, use: rate_together, each: [attribute], with: {instructions: Rate them.}}"
    own = f"{{about: Badly put., steps: [{rate}], decide: {{use: closest, take: rate}}}}"
    program = closed.PROGRAM.replace("{use: comparative_regression}", own)
    split = "path: cases.jsonl, split: {train: 0.5, test: 0.5, group: scenario}"
    program = program.replace("path: cases.jsonl", split)
    program += f"  writer: {{use: 'scripted:{writer}'}}\n"
    program += "optimize: {decider: together, trials: 4, propose: {model: writer, count: 1}}\n"
    path = closed.write(tmp_path, f"openai/tiny, endpoint: '{llama.endpoint}'", 28, program)
    task = Task(path, method=method, store=tmp_path / ".align" / "align.db")
    outcome = optimize(task)
    assert outcome.paid > 0
    if method == "bootstrap":
        assert outcome.found is not None
        assert outcome.found.scores is not None
        assert not outcome.is_better
    else:
        assert outcome.verdict is not None
        assert outcome.verdict.default < 0.7
        assert outcome.verdict.winner == pytest.approx(1)
        assert outcome.written is not None
        made = compile(outcome.written).program.deciders[0]
        assert made.step("rate").params["instructions"] == INSTRUCTIONS
    again = optimize(task)
    assert (again.found, again.verdict) == (outcome.found, outcome.verdict)
    with Store.open(task.store) as store:
        opened = ready(task, store)
        with Study(task.where, opened.study) as study:
            assert study.paid()[0] == outcome.paid
