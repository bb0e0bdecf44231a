"""What a study pays, and what it does where nobody answers: with a server that counts."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.engine.budget import Budget
from align_dsl.engine.execute import Stop
from align_dsl.errors import BackendError, BudgetError
from align_dsl.optimize import ledger
from align_dsl.optimize.run import begin, optimize
from align_dsl.optimize.sat import FAILED, Sat
from align_dsl.optimize.search import BATCH
from align_dsl.optimize.study import Study, find, me
from align_dsl.optimize.task import Task, ready
from align_dsl.optimize.workers import search_of, spending_of
from align_dsl.records.store import Store
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply
from tests.worlds import cases, write_world

PROGRAM = """version: 1
program: small
about: A small program whose calls are counted.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.5, test: 0.5}}
targets: {each: [low, high]}
deciders:
  mine: {use: comparative_regression}
model: here
models:
  here: {use: hosted_vllm/nobody, endpoint: URL/v1, concurrency: 4, context: 100000, retries: 0}
optimize:
  decider: mine
  trials: 6
  space: SPACE
"""
SPACE = "{shots: [0, 1, 2, 3], select: [similar, random]}"
REFUSED = Reply(body=b'{"error": {"message": "no such key"}}', status=401)
NOBODY = FAULTS["hangs up"]


def answer(asked: Asked) -> Reply:
    """Ratings drawn from the prompt: the same prompt, the same answer."""
    ratings = asked.schema["properties"]["ratings"]["properties"]
    dice = random.Random(hashlib.sha256(json.dumps(asked.messages).encode()).digest())
    said = {"because": "so", "ratings": {letter: dice.randrange(11) for letter in ratings}}
    return Reply(json.dumps(said))


def task(folder: Path, server: Recorder, space: str = SPACE, **options: object) -> Task:
    path = write_world(
        folder, cases(16), PROGRAM.replace("URL", server.url).replace("SPACE", space)
    )
    return Task(path, store=folder / ".align" / "align.db", **options)  # type: ignore[arg-type]


def study(folder: Path) -> Study:
    where = folder / ".align" / "study.log"
    return Study(where, find(where, "last"))


def default_needs(asked: Task) -> tuple[int, int]:
    """Calls of the default on the train cases and on the test cases."""
    with Store.open(asked.store) as store:
        made = ready(asked, store)
        return made.train.lacks(made.space.default), made.test.lacks(made.space.default)


# --- where nobody answers


def test_a_wrong_key_is_paid_once_and_told_and_the_same_command_recovers(tmp_path: Path) -> None:
    with Recorder(lambda asked: REFUSED) as server:
        asked = task(tmp_path, server)
        train, _ = default_needs(asked)
        for again in (1, 2):
            with pytest.raises(BackendError, match=r"failed on every question: .*no such key"):
                optimize(asked)
            assert len(server.asked) == again * train
        server.script = answer
        outcome = optimize(asked)
    assert len(outcome.done) == 6
    assert not any(FAILED in d.sat.marks for d in outcome.done)


def test_a_server_that_is_not_there_is_said_before_anything_is_begun(tmp_path: Path) -> None:
    with Recorder(answer) as server:
        asked = task(tmp_path, server)
    with pytest.raises(BackendError, match="cannot be reached"):
        optimize(asked)
    assert study(tmp_path).trials() == []


def test_an_answer_that_does_not_come_is_asked_for_again_before_it_counts(tmp_path: Path) -> None:
    times: Counter[bytes] = Counter()

    def moody(asked: Asked) -> Reply:
        times[asked.body] += 1
        return NOBODY if times[asked.body] == 1 and len(times) % 3 == 0 else answer(asked)

    with Recorder(answer) as server:
        quiet = optimize(task(tmp_path / "quiet", server))
    with Recorder(moody) as server:
        outcome = optimize(task(tmp_path / "moody", server))
    assert max(times.values()) == 2
    assert [d.sat.marks for d in outcome.done] == [d.sat.marks for d in quiet.done]
    assert outcome.paid == sum(times.values())


def test_what_still_fails_is_wrong_and_told_and_tried_again_on_request(tmp_path: Path) -> None:
    gone: set[bytes] = set()

    def moody(asked: Asked) -> Reply:
        if len(gone) < 3:
            gone.add(asked.body)
        return NOBODY if asked.body in gone else answer(asked)

    said: list[str] = []
    with Recorder(moody) as server:
        asked = task(tmp_path, server)
        first = optimize(asked, told=said.append)
        assert Counter(a.body for a in server.asked)[next(iter(gone))] == 2
        marks = [d.sat.marks for d in first.done]
        assert FAILED in marks[0]
        assert any("failed, and count as wrong" in line for line in said)
        server.script = answer
        optimize(asked)
        assert [d.sat.marks for d in study(tmp_path).done()] == marks
        words = ["optimize", str(asked.program), "--store", str(asked.store), "--retry-failed"]
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
        with Recorder(answer) as other:
            quiet = optimize(task(tmp_path / "quiet", other))
    found = study(tmp_path).done()
    assert not any(FAILED in d.sat.marks for d in found)
    assert found[0].sat.marks == quiet.done[0].sat.marks
    assert [d.again for d in found] == [int(FAILED in m) for m in marks]


def test_a_trial_that_a_server_did_not_survive_gets_another_try(tmp_path: Path) -> None:
    with Recorder(answer) as server, Store.open(tmp_path / "a.db") as store:
        asked = task(tmp_path, server)
        made = ready(asked, store)
        with Study(asked.where, made.study) as kept:
            begin(made, kept)
            search = search_of(made, kept, Stop())
            search._prepare()
            search._try(kept.claim())
            for refused in (0, 1):
                search._prepare()
                while (trial := kept.claim()) and trial.user_attrs["slot"][:2] != [1, 0]:
                    pass
                assert trial is not None
                search._refuse_or_raise(trial, BackendError("gone"), is_default=False)
                assert len([d for d in kept.done() if d.why == "gone"]) == refused
        made.close()


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
        with pytest.raises(BudgetError, match=r"not enough .* before the default was tried"):
            optimize(asked)
        assert server.asked == []


def test_a_trial_waits_for_calls_that_others_hold(tmp_path: Path) -> None:
    with Recorder(answer) as server, Store.open(tmp_path / "a.db") as store:
        asked = task(tmp_path, server)
        train, test = default_needs(asked)
        asked = task(tmp_path, server, budget=Budget(2 * train + 2 * test))
        made = ready(asked, store)
        with Study(asked.where, made.study) as kept:
            begin(made, kept)
            search = search_of(made, kept, Stop())
            search._prepare()
            search._try(kept.claim())
            search._prepare()
            first, second = kept.claim(), kept.claim()
            assert first is not None
            assert second is not None
            looks: list[int] = []

            def looked() -> None:
                looks.append(1)
                if len(looks) == 2:  # it ends, and needed nothing of what it held
                    kept.finish(first, Sat("1"), [0.0], False, 0.0)

            def hold(trial: object) -> None:
                config = trial.user_attrs["config"]  # type: ignore[attr-defined]
                purse = search.spending.purse(trial)
                search.spending.hold(trial, config, purse, Stop(), looked)

            hold(first)
            assert ledger.held(kept.trials(), second) == train
            hold(second)
            assert len(looks) == 2
        made.close()


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
        with pytest.raises(BudgetError, match=r"the verdict needs .* calls, and 5 of the budget"):
            optimize(short, pick=number)
        assert len(server.asked) == paid


def optimize_without_verdict(asked: Task) -> int:
    """All trials; the number of one that is not the default."""
    with Store.open(asked.store) as store:
        made = ready(asked, store)
        with Study(asked.where, made.study) as kept:
            begin(made, kept)
            search_of(made, kept, Stop()).work()
            number = kept.done()[-1].number
        made.close()
    return number


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


def test_tokens_end_it_within_a_trial(tmp_path: Path) -> None:
    """18 tokens a call; what was in flight when they were spent comes on top."""
    with Recorder(answer) as server:
        asked = task(tmp_path, server)
        train, _ = default_needs(asked)
        calls = train + train // 2
        outcome = optimize(task(tmp_path, server, budget=Budget(tokens=18 * calls)))
        assert calls <= len(server.asked) - outcome_of_the_verdict(outcome) <= calls + 4
    assert "tokens is spent" in outcome.ended


def outcome_of_the_verdict(outcome: object) -> int:
    verdict = getattr(outcome, "verdict", None)
    return sum(verdict.calls) if verdict else 0


def test_seconds_are_those_of_the_clock_in_all_sessions() -> None:
    facts = {
        "session a": [100.0, 110.0],
        "session b": [105.0, 112.0],  # another machine, at the same time
        "session c": [200.0, 203.0],
        "created": "2026-01-01",
    }
    assert ledger.elapsed(facts) == 15.0


def test_seconds_of_earlier_sessions_count(tmp_path: Path) -> None:
    with Recorder(answer) as server:
        asked = task(tmp_path, server, budget=Budget(seconds=3600))
        optimize(asked)
        assert 0 < ledger.elapsed(study(tmp_path).facts()) < 600
        kept = study(tmp_path)
        kept.note(f"{ledger.SESSION}long ago", [0.0, 3600.0])
        assert "3,600 seconds is spent" in optimize(asked).ended


# --- slots that were lost


def test_what_was_lost_of_a_batch_gets_the_configuration_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another version would propose something else."""
    with Recorder(answer) as server, Store.open(tmp_path / "a.db") as store:
        asked = task(tmp_path, server)
        made = ready(asked, store)
        with Study(asked.where, made.study) as kept:
            begin(made, kept)
            search = search_of(made, kept, Stop())
            search._prepare()
            search._try(kept.claim())
            configs = search._batch(1, kept.done(), BATCH)
            # two of four were written down, and of these one was lost
            kept.enqueue(1, BATCH, {0: configs[2], 1: configs[3]}, made.space)
            lost = kept.claim()
            assert lost is not None
            kept.storage.set_trial_user_attr(lost._trial_id, "worker", {**me(), "pid": 2**22})
            kept.fail_stale()
            search._prepare()
            waiting = {
                t.user_attrs["slot"][1]: t.user_attrs["config"]
                for t in kept.trials()
                if t.state.name == "WAITING"
            }
        made.close()
    assert waiting == {0: configs[2], 1: configs[3], 2: configs[0], 3: configs[1]}


def test_more_workers_than_a_batch_has_trials_are_warned_of(tmp_path: Path) -> None:
    with Recorder(answer) as server, Store.open(tmp_path / "a.db") as store:
        for n, warned in ((BATCH, 0), (BATCH + 1, 1)):
            made = ready(task(tmp_path, server, workers=n), store)
            assert sum("have nothing to do" in w for w in made.warnings) == warned
            made.close()


def test_helpers_leave_the_default_to_who_began(tmp_path: Path) -> None:
    with Recorder(answer) as server, Store.open(tmp_path / "a.db") as store:
        made = ready(task(tmp_path, server), store)
        with Study(made.task.where, made.study) as kept:
            begin(made, kept)
            search_of(made, kept, Stop())._prepare()
            assert kept.claim(default=False) is None
            assert kept.claim() is not None
        made.close()


def test_spending_says_what_is_kept_for_the_verdict(tmp_path: Path) -> None:
    with Recorder(answer) as server, Store.open(tmp_path / "a.db") as store:
        _, test = default_needs(task(tmp_path, server))
        made = ready(task(tmp_path, server, budget=Budget(2 * test + 1)), store)
        with Study(made.task.where, made.study) as kept:
            assert spending_of(made, kept).left() == Budget(calls=1)
            assert spending_of(made, kept).spent() == ""
        made.close()
