"""Servers that misbehave: every decision comes out right or says why not, and nothing is lost.

`benchmarks/faults.py` is the same at thirty times the size, with kills and a look at memory.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.engine.hearing import SILENCE
from align_dsl.pipeline import Outcome, load, run
from align_dsl.records.record import Answer, Judgement
from align_dsl.records.results import results
from align_dsl.records.store import Store
from align_dsl.records.table import caption
from tests.servers.faulty import MISHAPS, RIGHT, Faulty, differences, program
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply, obey
from tests.test_lm import answer
from tests.worlds import cases, write_world

CASES, RETRIES = 38, 2
TIMEOUT = 3.0  # a right answer must never come later, however busy this machine is
DECISIONS = 8 * CASES  # four deciders, two targets


@dataclass
class Ran:
    """A run, what its server did, and what the store holds afterwards."""

    outcome: Outcome
    sent: dict[str, list[str]]
    answers: dict[str, Answer]
    judged: dict[tuple[str, str, str], Judgement]

    def answer_to(self, mishap: str) -> Answer:
        """What became of the question that was met by this and nothing else."""
        (question,) = [q for q, tries in self.sent.items() if set(tries) == {mishap}][:1]
        prefix = f"{int(question.partition(' ')[0]):07x}"
        return next(a for k, a in self.answers.items() if k.startswith(prefix))


def ran(path: Path, store: Path, faulty: Faulty, **options: Any) -> Ran:
    with Store.open(store) as opened:
        outcome = run(load(path), opened, **options)
        with opened._database.reading() as db:
            keys = [key for (key,) in db.execute("SELECT key FROM answers")]
        judgements = opened.load(outcome.record.id).judgements
        judged = {(j.decision.decider, j.target, j.decision.scenario): j for j in judgements}
        assert len(judged) == len(judgements)
        return Ran(outcome, faulty.sent, opened.known(keys), judged)


@dataclass
class Story:
    """The same program on the same server: well, ill, and well again."""

    clean: Ran
    ill: Ran
    healed: Ran


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("faults")
    told = []
    with Recorder() as server:
        text = program(server.url, retries=RETRIES, timeout=TIMEOUT)
        path = write_world(folder, cases(CASES), text)
        ill = Faulty(rate=0.15, stubborn=tuple(MISHAPS))
        for store, faulty, again in (
            ("clean", Faulty(), False),
            ("ill", ill, False),
            ("ill", Faulty(), True),
        ):
            server.script = faulty
            told.append(ran(path, folder / f"{store}.db", faulty, retry_failed=again))
    return Story(*told)


def test_every_decision_comes_or_says_why_not(story: Story) -> None:
    assert len(story.clean.judged) == DECISIONS
    assert story.ill.judged.keys() == story.clean.judged.keys()
    for judgement in story.ill.judged.values():
        decision = judgement.decision
        came = decision.status in ("ok", "tied")
        assert came == (decision.choice is not None)
        assert came or decision.failures[0].status == decision.status
    counts = Counter(j.decision.status for j in story.ill.judged.values())
    assert counts.keys() >= {m.status for m in MISHAPS.values()} | {"ok"}
    assert story.ill.outcome.record.counts == counts


def test_what_is_kept_is_what_went_over_the_wire(story: Story) -> None:
    """No request uncounted, no job asked again after its answer, no answer lost or mistaken."""
    for one in (story.clean, story.ill):
        assert differences(one.sent, one.answers.values()) == []
        requests = sum(map(len, one.sent.values()))
        assert requests == sum(a.calls for a in one.answers.values())
        assert requests == one.outcome.spent.calls
        assert all(RIGHT not in tries[:-1] for tries in one.sent.values())
    assert {what for tries in story.ill.sent.values() for what in tries} == {RIGHT, *MISHAPS}


def test_what_came_is_what_a_clean_run_says(story: Story) -> None:
    clean, ill = story.clean, story.ill
    both = [k for k, j in ill.judged.items() if j.decision.choice is not None]
    assert DECISIONS / 2 < len(both) < DECISIONS
    for key in both:
        mine, theirs = ill.judged[key], clean.judged[key]
        assert mine == theirs
    by_id = {c.scenario.id: c for c in load_cases(clean)}
    targets = clean.outcome.record.targets
    tables = [results([one.judged[k] for k in both], by_id, targets) for one in (clean, ill)]
    assert tables[0] == tables[1]


def load_cases(one: Ran) -> Any:
    return load(Path(one.outcome.record.source)).cases


def test_a_healed_server_is_asked_what_failed_and_nothing_else(story: Story) -> None:
    failed = {k for k, a in story.ill.answers.items() if not a.ok}
    assert sum(map(len, story.healed.sent.values())) == len(failed)
    assert story.healed.outcome.spent.calls == len(failed)
    assert story.healed.judged == story.clean.judged
    assert {**story.healed.outcome.record.counts} == {**story.clean.outcome.record.counts}


def test_the_failures_are_told(story: Story) -> None:
    outcome = story.ill.outcome
    said = "\n".join(caption(outcome.record, outcome.notes, outcome.reasons))
    for status, n in outcome.record.counts.items():
        if status not in ("ok", "tied"):
            assert f"{n} {status}" in said
    assert "`--retry-failed` asks them again" in said


TOLD: dict[str, tuple[str, int, str]] = {
    "429": ("unreachable", 3, 'URL/v1 answered 429: {"error": "busy"}'),
    "429 with Retry-After": ("unreachable", 3, 'URL/v1 answered 429: {"error": "busy"}'),
    "503": ("unreachable", 3, "URL/v1 answered 503: too many requests wait"),
    "503 with Retry-After": ("unreachable", 3, "URL/v1 answered 503: full"),
    "500": ("refused", 3, 'URL/v1 answered 500: {"error": "odd text"}'),
    "hang": ("timeout", 3, f"no answer within {TIMEOUT:g} s from URL/v1"),
    "cut body": ("unreachable", 3, "URL/v1 hung up before its answer was complete"),
    "hangs up": ("unreachable", 3, "URL/v1 hung up before its answer was complete"),
    "not JSON": ("invalid", 3, "URL/v1 sent something that is no answer: <html>hello</html>"),
    "error body": ("refused", 3, "URL/v1 answered with an error: model not found"),
    "truncated": ("truncated", 1, "the answer was cut off at the token limit"),
    "wrong type": ("invalid", 2, "not "),
    "ignores the schema": ("invalid", 2, "the answer is not one JSON object: Expecting value"),
    "control characters": ("invalid", 2, "the answer is not one JSON object: Invalid control"),
}


@pytest.mark.parametrize("mishap", MISHAPS)
def test_a_fault_for_good(mishap: str, story: Story) -> None:
    """Status, calls and the words a user reads, where a server does nothing else."""
    got = story.ill.answer_to(mishap)
    status, calls, words = TOLD[mishap]
    assert got.failure is not None
    assert (got.failure.status, got.calls, got.retries) == (status, calls, calls - 1)
    words = words.partition("URL")[2] if "URL" in words else words
    assert words in got.failure.message


# --- what no fault server shows ------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def small(folder: Path, url: str, n: int = 4, **model: Any) -> Path:
    return write_world(folder, cases(n), program(url, **model))


def outcome_of(path: Path, folder: Path) -> Outcome:
    with Store.open(folder / "a.db") as store:
        return run(load(path), store)


def test_500_on_odd_text_costs_the_odd_question_alone(server: Recorder, tmp_path: Path) -> None:
    def script(asked: Asked) -> Reply:
        return FAULTS["500"] if "number 1" in asked.messages[1]["content"] else obey(asked)

    server.script = script
    outcome = outcome_of(small(tmp_path, server.url, retries=1), tmp_path)
    assert outcome.record.counts["refused"] == 8  # four deciders, two targets
    assert sum(outcome.record.counts.values()) == 4 * 8
    assert [why for why in outcome.reasons if "answered 500" in why and "odd text" in why]


def spoken_by(other: str) -> Callable[[Asked], Reply]:
    return lambda asked: replace(obey(asked), model=other)


def test_an_answer_by_another_model_is_noted(server: Recorder) -> None:
    """No failure: servers spell names otherwise, and hosted ones add dates. But it must be seen."""
    server.script = spoken_by("other-7b")
    got = answer(server, "openai")
    assert got.ok
    assert got.notes["answered_by"] == "other-7b"
    server.script = spoken_by("tiny")
    assert "answered_by" not in answer(server, "openai").notes


def test_a_table_made_by_another_model_says_so(server: Recorder, tmp_path: Path) -> None:
    server.script = spoken_by("other-7b")
    outcome = outcome_of(small(tmp_path, server.url), tmp_path)
    said = "\n".join(caption(outcome.record, outcome.notes, outcome.reasons))
    assert "other-7b" in said
    assert "tiny" in said


def loading(server: Recorder, times: int) -> Callable[[Asked], Reply]:
    """As llama.cpp says it while it loads; so often, then it answers."""

    def script(asked: Asked) -> Reply:
        return FAULTS["loading"] if len(server.asked) <= times else obey(asked)

    return script


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is loading is asked again sooner than is good for it."""
    monkeypatch.setattr("align_dsl.engine.wire.LOADING_SECONDS", 0.05)


def test_a_server_that_is_loading_is_waited_for(server: Recorder, impatient: None) -> None:
    """It is there and says that it will answer. That is no try, so it costs no retry."""
    server.script = loading(server, 12)
    got = answer(server, "openai", retries=0)
    assert got.ok, got.failure
    assert (got.calls, got.retries) == (13, 0)


def test_a_server_that_loads_for_ever_is_given_up(server: Recorder, impatient: None) -> None:
    """Waited for no longer than for an answer, and told apart from a server that is busy."""
    server.script = loading(server, 10**9)
    got = answer(server, "openai", retries=5, timeout=0.3)
    assert got.failure is not None
    assert got.failure.status == "unreachable"
    assert got.calls == len(server.asked) > 1
    assert "still loading its model after 0.3 s" in got.failure.message


def test_a_run_waits_once_for_a_server_that_loads_for_ever(
    server: Recorder, tmp_path: Path, impatient: None
) -> None:
    """What the first job has learnt holds for the others: none is asked, and none has failed."""
    server.script = loading(server, 10**9)
    path = small(tmp_path, server.url, n=2, timeout=0.2)
    outcome = outcome_of(path, tmp_path)
    assert "still loading its model after 0.2 s" in str(outcome.gone)
    assert outcome.record.status == "failed"
    assert outcome.record.counts == {}
    assert len(server.asked) < 20
    server.script = obey
    assert outcome_of(path, tmp_path).spent.cached == 0


GOOD = Reply('{"because": "b", "ratings": {"A": 1, "B": 2}}', headers={"Server": "llama.cpp"})


def test_how_an_answer_was_held_is_how_it_was_asked_for(server: Recorder) -> None:
    """A server that is known by its first reply alone was not sent a grammar before it."""
    server.answer(GOOD)
    got = answer(server, "openai")
    assert got.ok
    assert (got.constrained == "grammar") == ("grammar" in server.asked[0].json)


def test_who_is_loading_is_known_before_it_answers(server: Recorder, impatient: None) -> None:
    """Else the first answer after loading is held by `response_format`, which llama.cpp breaks."""
    server.answer(replace(FAULTS["loading"], headers=GOOD.headers), GOOD)
    assert answer(server, "openai", retries=0).ok
    assert "grammar" in server.asked[1].json


def test_what_came_just_before_a_server_was_gone_is_kept(server: Recorder, tmp_path: Path) -> None:
    """Answers and silences may come together, and be looked at together."""
    server.script = lambda asked: obey(asked) if len(server.asked) <= 20 else FAULTS["hangs up"]
    path = small(tmp_path, server.url, n=40, retries=0)
    outcome = outcome_of(path, tmp_path)
    assert "all answers so far are saved" in str(outcome.gone)
    server.script = obey
    assert outcome_of(path, tmp_path).spent.cached == 20


def test_a_few_silences_in_each_of_two_steps_are_failures_and_no_end(
    server: Recorder, tmp_path: Path
) -> None:
    """Fewer than make a server count as gone; those of one step are not added to the next one's."""
    server.script = lambda asked: FAULTS["hangs up"]
    outcome = outcome_of(small(tmp_path, server.url, n=2, retries=0, concurrency=2), tmp_path)
    assert outcome.record.counts == {"unreachable": 16}


@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_run_ends_where_nobody_answers_any_more(
    concurrency: int, server: Recorder, tmp_path: Path
) -> None:
    """A server that has gone is no failure of hundreds of questions, and hours are not spent on it.

    Nothing but `timeout` and `unreachable` for as many jobs in a row as it was asked at once, and
    again as many: then the run ends with exit code 4. What has come is kept, judged and shown.
    """
    server.script = lambda asked: obey(asked) if len(server.asked) <= 20 else FAULTS["hangs up"]
    path = small(tmp_path, server.url, n=40, retries=0, concurrency=concurrency)
    outcome = outcome_of(path, tmp_path)
    assert "hung up" in str(outcome.gone)
    # of some 250; what was let go before it was on the wire is counted as well
    assert len(server.asked) <= outcome.spent.calls < 100
    assert outcome.record.status == "failed"
    assert outcome.record.results
    assert {*outcome.record.counts} <= {"ok", "tied"}  # what was not asked is no failure
    with Store.open(tmp_path / "a.db") as store:
        assert [(r.status, r.owner) for r in store.runs()] == [("failed", "")]


@pytest.mark.parametrize(
    "reply",
    [Reply(body=b"", status=status) for status in (429, 503, 500)],
    ids=lambda reply: str(reply.status),
)
def test_a_server_that_says_anything_is_there(
    reply: Reply, server: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align_dsl.engine.limiter.FULL_SECONDS", 1.0)  # nobody waits for it here
    server.script = lambda asked: reply
    outcome = outcome_of(small(tmp_path, server.url, n=6, retries=0), tmp_path)
    assert outcome.gone is None
    assert len(server.asked) == outcome.spent.calls > SILENCE
    assert sum(outcome.record.counts.values()) == 48
    assert not outcome.record.counts.keys() & {"ok", "tied"}


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_before_a_dead_server_is_no_server(
    status: int, server: Recorder, tmp_path: Path
) -> None:
    server.script = lambda asked: Reply(body=b"<html>Bad Gateway</html>", status=status)
    outcome = outcome_of(small(tmp_path, server.url, n=40, retries=0), tmp_path)
    assert str(status) in str(outcome.gone)
    assert len(server.asked) < 100


def test_a_hanging_server_is_known_before_a_job_has_failed(
    server: Recorder, tmp_path: Path
) -> None:
    """Each job would ask twenty times more."""
    server.script = lambda asked: obey(asked) if len(server.asked) <= 20 else FAULTS["hang"]
    path = small(tmp_path, server.url, n=40, retries=20, timeout=0.1, concurrency=64)
    outcome = outcome_of(path, tmp_path)
    assert "answers no more: nobody replies" in str(outcome.gone)
    assert len(server.asked) <= outcome.spent.calls < 500
    server.script = obey
    assert 0 < outcome_of(path, tmp_path).spent.cached <= 20  # some may have come too late


def test_a_run_that_loses_its_server_says_so_and_leaves_with_4(
    server: Recorder, tmp_path: Path
) -> None:
    server.script = lambda asked: obey(asked) if len(server.asked) <= 60 else FAULTS["hangs up"]
    path = small(tmp_path, server.url, n=40, retries=0)
    store = ["--store", str(tmp_path / "a.db")]
    done = subprocess.run(
        [sys.executable, "-m", "align_dsl", "run", str(path), *store],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "the model `here` answers no more" in done.stderr
    assert "the same command goes on" in done.stderr
    assert "not finished: the table counts only what was asked so far" in done.stdout
    said = CliRunner().invoke(cli, ["runs", *store]).output
    assert "failed" in said


# --- Ctrl-C --------------------------------------------------------------------------------------


@dataclass
class Interrupted:
    """A run on a terminal and a server that hangs, after two Ctrl-C."""

    path: Path
    code: int
    seen: bytes
    requests: int


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    """No timeout of the model would end this in time."""
    folder = tmp_path_factory.mktemp("interrupted")
    with Recorder() as server:
        server.script = lambda asked: obey(asked) if len(server.asked) <= 10 else FAULTS["hang"]
        path = small(folder, server.url, timeout=3600)
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "align_dsl", "run", str(path)]
        command += ["--store", str(folder / "a.db")]
        child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen, signals = b"", 0
        while True:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            if signals == 0 and len(server.asked) > 10:
                signals = 1
                child.send_signal(signal.SIGINT)
            elif signals == 1 and b"stopping" in seen:
                signals = 2
                child.send_signal(signal.SIGINT)
        os.close(ours)
        child.wait(30)
        server.script = obey
        yield Interrupted(path, child.returncode, seen, len(server.asked))


def test_a_second_ctrl_c_ends_it_and_says_how_to_go_on(interrupted: Interrupted) -> None:
    assert interrupted.code == 130
    first, _, second = interrupted.seen.partition(b"again to stop at once")
    assert b"stopping" in first
    assert b"to go on: align-dsl run" in second
    hidden, shown = (interrupted.seen.rfind(b"\x1b[?25" + end) for end in (b"l", b"h"))
    assert -1 < hidden < shown  # the cursor


def test_what_was_let_go_is_counted(interrupted: Interrupted) -> None:
    """The server had it, and did the work."""
    (calls,) = re.findall(rb"run small-\w+: ([\d,]+) calls", interrupted.seen)
    assert int(calls) >= interrupted.requests  # some were not on the wire yet


def test_what_came_before_a_second_ctrl_c_is_kept(interrupted: Interrupted) -> None:
    folder = interrupted.path.parents[1]
    with Store.open(folder / "a.db") as store:
        assert [r.status for r in store.runs()] == ["interrupted"]
    outcome = outcome_of(interrupted.path, folder)  # nobody waits for claims of the dead
    assert outcome.record.status == "ok"
    assert outcome.spent.cached >= 9
