"""Processes that search together: one that dies is told of, and what it was at is tried again."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest

from align_dsl.engine.execute import Stop
from align_dsl.optimize.run import begin, optimize
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task, ready
from align_dsl.optimize.workers import search_of, workers
from align_dsl.records.store import Store
from tests.test_optimize_study import WIDE, trials_of, world


def killed_in_a_trial(study: Study, pid: int, after: int = 0) -> int:
    """Kill -9 a process while it is at a trial, once some are done; the number of the trial.

    It is stopped first, and looked at: so that it is not killed between two trials.
    """
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if at_work(study, pid) and len(study.done()) >= after:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)
            found = at_work(study, pid)
            if found:
                os.kill(pid, signal.SIGKILL)
                return found[0]
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError(f"{pid} was at no trial")


def at_work(study: Study, pid: int) -> list[int]:
    running = [t for t in study.trials() if t.state.name == "RUNNING"]
    return [t.number for t in running if t.user_attrs.get("worker", {}).get("pid") == pid]


def test_a_worker_that_is_killed_is_told_of_and_its_trial_tried_again(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    optimize(Task(world(alone, WIDE), store=alone / ".align" / "align.db"))
    folder = tmp_path / "two"
    task = Task(world(folder, WIDE), store=folder / ".align" / "align.db", workers=3)
    said: list[str] = []
    with Store.open(task.store) as store:
        made = ready(task, store)
        with Study(task.where, made.study) as study:
            begin(made, study)
            first = search_of(made, study, Stop())
            first._prepare()
            first._try(study.claim())  # the default is never left to the others
            with workers(task, Stop(), said.append):
                while len(both := multiprocessing.active_children()) < 2:
                    time.sleep(0.01)
                other = both[0]
                assert other.pid is not None
                lost = killed_in_a_trial(study, other.pid, after=2)  # we sit still meanwhile
                while not said:
                    time.sleep(0.01)
                search_of(made, study, Stop()).work()
            (dead,) = [t for t in study.trials() if t.number == lost]
            assert dead.user_attrs["given_back"] == "its worker died"
        made.close()
    (line,) = said  # nothing of the one that came to its end
    assert re.fullmatch(
        r"worker [23] of 3 died \(killed by signal 9\); it is started again, .*", line
    )
    assert trials_of(folder) == trials_of(alone)


def test_a_worker_that_cannot_go_on_says_why_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task = Task(tmp_path / "nothing.yaml", store=tmp_path / "align.db", workers=2)
    with workers(task, Stop()):
        pass
    _, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("worker 2 of 2 died (there is no such file); ")
