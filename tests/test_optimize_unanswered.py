"""What a study does where nobody answers: with a server that counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.errors import BackendError
from align_dsl.optimize.run import optimize
from align_dsl.optimize.sat import FAILED
from align_dsl.optimize.studies import studies
from tests.counted import (
    NOBODY,
    REFUSED,
    answer,
    at_work,
    default_needs,
    study,
    task,
    try_default,
)
from tests.servers.recorder import Asked, Recorder, Reply


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
    assert [facts for _, facts in studies(asked.where)] == [{}]


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
    with Recorder(answer) as server, at_work(task(tmp_path, server)) as (_, kept, search):
        try_default(search)
        for refused in (0, 1):
            search._prepare()
            while (trial := kept.claim()) and trial.user_attrs["slot"][:2] != [1, 0]:
                pass
            assert trial is not None
            search._refuse_or_raise(trial, BackendError("gone"), is_default=False)
            assert len([d for d in kept.done() if d.why == "gone"]) == refused
