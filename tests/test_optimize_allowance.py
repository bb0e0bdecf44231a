"""What a study pays, and what it keeps back: with a server that counts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest

from align_dsl.engine.budget import Budget
from align_dsl.engine.execute import Stop
from align_dsl.errors import BudgetError
from align_dsl.optimize import expenses
from align_dsl.optimize.reserve import Kept, Rate, Reserve
from align_dsl.optimize.run import optimize
from align_dsl.optimize.sat import Sat
from align_dsl.optimize.task import Task
from align_dsl.records.store import Store
from tests.counted import (
    answer,
    at_work,
    default_needs,
    study,
    task,
    try_default,
)
from tests.servers.recorder import Asked, Recorder, Reply

# --- what it costs


def test_a_budget_of_calls_is_kept_with_workers_and_none_of_it_is_lost(tmp_path: Path) -> None:
    """No trial is begun that cannot be finished: what was paid is all in trials that were."""
    space = "{shots: {low: 0, high: 9}, select: [similar, random]}"
    with Recorder(answer) as server:
        train, test = default_needs(task(tmp_path, server, space))
        limit = 4 * train + 2 * test + 3
        asked = task(tmp_path, server, space, workers=3, budget=Budget(limit))
        outcome = optimize(asked)
    assert len(server.asked) == outcome.paid <= limit
    assert len(outcome.done) == 4
    assert "budget" in outcome.ended
    kept = study(tmp_path)
    assert kept.paid()[0] == outcome.paid
    running = [t for t in kept.trials() if t.state.name == "RUNNING"]
    unpaid = [t for t in kept.trials() if t.user_attrs.get("given_back")]
    assert running == []
    assert all(t.user_attrs.get("paid", [0])[0] == 0 for t in unpaid)


def test_nobody_waits_for_a_default_that_is_not_paid_for(tmp_path: Path) -> None:
    with Recorder(answer) as server:
        _, test = default_needs(task(tmp_path, server))
        asked = task(tmp_path, server, workers=2, budget=Budget(2 * test + 1))
        with pytest.raises(BudgetError, match=rf"too small: the verdict alone needs {2 * test}\n"):
            optimize(asked)
        assert server.asked == []


def test_a_trial_waits_for_calls_that_others_hold(tmp_path: Path) -> None:
    with Recorder(answer) as server:
        train, test = default_needs(task(tmp_path, server))
        asked = task(tmp_path, server, budget=Budget(2 * train + 2 * test))
        with at_work(asked) as (_, kept, search):
            try_default(search)
            first, second = kept.claim(), kept.claim()
            assert first is not None
            assert second is not None
            looks: list[int] = []

            def looked() -> None:
                looks.append(1)
                if len(looks) == 2:  # it ends, and needed nothing of what it held
                    kept.finish(first, Sat("1"), [0.0], False, 0.0)

            for trial in (first, second):
                assert expenses.held(kept.trials(), second) == (train if trial is second else 0)
                purse = search.allowance.purse(trial)
                search.allowance.hold(trial, trial.user_attrs["config"], purse, Stop(), looked)
            assert len(looks) == 2


def test_the_verdict_is_paid_for_even_where_the_winner_is_dear(tmp_path: Path) -> None:
    """`order: both` asks what the default does and as much again: that is kept back for it."""
    space = "{order: [shuffle, both]}"
    with Recorder(answer) as server:
        train, test = default_needs(task(tmp_path, server, space))
        short = task(tmp_path, server, space, budget=Budget(2 * train + 2 * test - 1))
        outcome = optimize(short)
        assert len(outcome.done) == 1  # the dear one could be tried, and not judged
        assert len(server.asked) == train
        whole = task(tmp_path, server, space, budget=Budget(2 * train + 2 * test))
        outcome = optimize(whole, pick=study(tmp_path).trials()[-1].number + 1)
    assert outcome.verdict is not None
    assert len(server.asked) == 2 * train + 2 * test == study(tmp_path).paid()[0]


def test_a_verdict_that_does_not_fit_is_refused_before_it_asks_anything(tmp_path: Path) -> None:
    with Recorder(answer) as server:
        asked = task(tmp_path, server, "{order: [shuffle, both]}")
        number = optimize_without_verdict(asked)
        paid = len(server.asked)
        short = task(tmp_path, server, "{order: [shuffle, both]}", budget=Budget(paid + 5))
        with pytest.raises(BudgetError) as said:
            optimize(short, pick=number)
        assert len(server.asked) == paid
        _, test = default_needs(asked)
        assert str(said.value) == (
            f"error: the budget of {paid + 5} calls is too small: {paid} are spent, and the verdict"
            f" needs {2 * test}\n  = write --budget calls={paid + 2 * test}"
        )
        enough = Budget(paid + 2 * test)
        done = optimize(replace(short, budget=enough), pick=number)
    assert done.verdict is not None


def optimize_without_verdict(asked: Task) -> int:
    """All trials; the number of one that is not the default."""
    with at_work(asked) as (_, kept, search):
        search.work()
        return kept.done()[-1].number


def test_what_a_killed_process_has_paid_is_written_down(tmp_path: Path) -> None:
    with Recorder(lambda asked: Reply(answer(asked).content, delay=0.15)) as server:
        asked = task(tmp_path, server)
        command = [sys.executable, "-m", "align_dsl", "optimize", str(asked.program)]
        command += ["--store", str(asked.store)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            end = time.monotonic() + 60
            while time.monotonic() < end and not is_noted(asked):
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        kept = study(tmp_path)
        assert 0 < kept.paid()[0] <= len(server.asked)
        server.script = answer
        outcome = optimize(asked)
    with Store.open(asked.store) as store, store._database.reading() as db:
        (answers,) = db.execute("SELECT count(*) FROM answers").fetchone()
    assert answers - 12 <= outcome.paid <= len(server.asked)  # but for the last second


def is_noted(asked: Task) -> bool:
    where = asked.where
    return isinstance(where, Path) and where.exists() and '"paid"' in where.read_text()


def test_a_verdict_that_is_cut_short_is_paid_for_all_the_same(tmp_path: Path) -> None:
    stop = Stop()
    with Recorder(answer) as server:
        asked = task(tmp_path, server, "{order: [shuffle, both]}")
        number = optimize_without_verdict(asked)
        before = len(server.asked)

        def moody(one: Asked) -> Reply:
            if len(server.asked) > before + 5:
                stop.now("interrupted")
            return answer(one)

        server.script = moody
        assert optimize(asked, pick=number, stop=stop).verdict is None
    assert study(tmp_path).paid()[0] == len(server.asked) > before


# --- what is kept for the verdict


def test_calls_for_the_verdict_are_kept_from_the_start(tmp_path: Path) -> None:
    with Recorder(answer) as server:
        _, test = default_needs(task(tmp_path, server))
        with at_work(task(tmp_path, server, budget=Budget(2 * test + 1))) as (_, _, search):
            assert search.allowance.left() == Budget(calls=1)
            assert search.allowance.spent() == ""


def test_tokens_for_the_verdict_are_kept_as_trials_took_them(tmp_path: Path) -> None:
    """18 tokens a call; what was in flight when the others were spent comes on top."""
    with Recorder(answer) as server:
        train, test = default_needs(task(tmp_path, server))
        kept = ceil(1.1 * 18 * 2 * test)
        limit = 18 * (3 * train + train // 2) + kept
        asked = task(tmp_path, server, budget=Budget(tokens=limit))
        outcome = optimize(asked)
        assert len(outcome.done) == 3
        assert f"but for about {kept} tokens that the verdict may need" in outcome.ended
        judged = optimize(asked, pick=outcome.done[-1].number).verdict
    assert judged is not None
    assert sum(judged.tokens) <= kept
    assert study(tmp_path).paid()[1] == 18 * len(server.asked) <= limit + 18 * 4


def test_who_costs_more_and_is_slower_has_more_kept_for_it(tmp_path: Path) -> None:
    """`order: both` asks what the default does and as much again."""
    with Recorder(answer) as server:
        asked = task(tmp_path, server, "{order: [shuffle, both]}")
        train, test = default_needs(asked)
        with at_work(asked) as (made, kept, search):
            search.work()
            first, dear = (replace(d, seconds=2.0) for d in kept.done())
            reserve, so_far = Reserve(made.train, made.test), Rate(tokens=10, seconds=1)
            assert reserve.kept((), so_far) == Kept(2 * test, ceil(22 * test), 2.2 * test)
            once = reserve.kept([first], so_far)
            assert (once.calls, once.tokens) == (2 * test, ceil(1.1 * 36 * test))
            assert once.seconds == pytest.approx(1.1 * 2 * test * 2 / train)
            tokens = replace(dear.sat.spent, tokens=40 * dear.sat.spent.calls)
            longer = replace(dear, sat=replace(dear.sat, spent=tokens))
            assert reserve.kept([first, longer], so_far).tokens == ceil(1.1 * (18 + 40) * test)


@pytest.mark.parametrize("what", ["calls", "tokens"])
def test_a_budget_that_is_too_small_says_what_to_write(what: str, tmp_path: Path) -> None:
    with Recorder(answer) as server:
        train, test = default_needs(task(tmp_path, server))
        small = {"calls": 2 * test + 1, "tokens": 9 * train}[what]
        needs = {"calls": f"{2 * test}", "tokens": f"about {ceil(1.1 * 18 * 2 * test)}"}[what]
        with pytest.raises(BudgetError) as said:
            optimize(task(tmp_path, server, budget=Budget(**{what: small})))
        first, second = str(said.value).split("\n")
        assert first == (
            f"error: the budget of {small} {what} is too small: the verdict alone needs {needs}"
        )
        assert second.startswith(f"  = write --budget {what}=")
        enough = int(second.rpartition("=")[2])
        asked = task(tmp_path, server, budget=Budget(**{what: enough}))
        done = optimize(asked).done
        assert len(done) >= 2
        assert optimize(asked, pick=done[1].number).verdict is not None
    assert study(tmp_path).paid()[what == "tokens"] <= enough


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(calls=10**6, tokens=100), "budget of 100 tokens is too small: the verdict alone"),
        (Budget(calls=17, tokens=10**9), "budget of 17 calls is too small: the verdict alone"),
        (Budget(tokens=0), "budget of 0 tokens is too small: it is spent before the default"),
        (Budget(calls=10**6, seconds=0), "budget of 0 seconds is too small: it is spent before"),
    ],
)
def test_of_several_budgets_the_one_that_is_too_small_is_named(
    budget: Budget, said: str, tmp_path: Path
) -> None:
    with Recorder(answer) as server, pytest.raises(BudgetError, match=said):
        optimize(task(tmp_path, server, budget=budget))


def test_seconds_are_those_of_the_clock_in_all_sessions() -> None:
    facts = {
        "session a": [100.0, 110.0],
        "session b": [105.0, 112.0],  # another machine, at the same time
        "session c": [200.0, 203.0],
        "created": "2026-01-01",
    }
    assert expenses.elapsed(facts) == 15.0


def test_seconds_of_earlier_sessions_count(tmp_path: Path) -> None:
    with Recorder(answer) as server:
        asked = task(tmp_path, server, budget=Budget(seconds=3600))
        optimize(asked)
        assert 0 < expenses.elapsed(study(tmp_path).facts()) < 600
        kept = study(tmp_path)
        kept.note(f"{expenses.SESSION}long ago", [0.0, 3600.0])
        assert "3,600 seconds is spent" in optimize(asked).ended
