"""Several servers of one model, and windows that are too short: what is sent where, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from align_dsl.backends import litellm
from align_dsl.commands import cli
from align_dsl.engine.adapter import NoAnswer, Trail
from align_dsl.engine.budget import Budget
from align_dsl.engine.prompt import Message
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.pipeline import Outcome, load, run
from align_dsl.records.store import Store
from tests.servers.fake_ollama import FakeOllama, Installed, served
from tests.servers.recorder import FAULTS, Recorder, Reply, obey
from tests.test_lm import SHAPE, answer_of

PROGRAM = """\
version: 1
program: shared
about: One model on two servers.
attributes:
  mercy: {about: Sparing people., high: It spares., low: It does not.}
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high]}
deciders: {rated: {use: comparative_regression}}
model: shared
models:
  shared: MODEL
"""
N = 60


@pytest.fixture
def two() -> Iterator[tuple[Recorder, Recorder]]:
    with Recorder() as one, Recorder() as other:
        yield one, other


def program(folder: Path, *servers: Recorder, **options: Any) -> Path:
    endpoints = [f"{s.url}/v1" for s in servers]
    said = {"use": "openai/tiny", "endpoint": endpoints, "concurrency": 8, **options}
    (folder / "shared.yaml").write_text(PROGRAM.replace("MODEL", json.dumps(said)))
    choices = [
        {"id": c, "text": f"Do {c}.", "labels": {"mercy": v}} for c, v in (("a", 9), ("b", 1))
    ]
    rows = [{"id": f"n{i}", "scenario": f"Number {i}.", "choices": choices} for i in range(N)]
    (folder / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder / "shared.yaml"


def outcome(path: Path) -> Outcome:
    with Store.open(path.parent / "a.db") as store:
        return run(load(path), store)


def asked(server: Recorder) -> list[bytes]:
    return [a.body for a in server.asked if a.path.endswith("/chat/completions")]


def test_servers_share_the_work_and_nothing_is_asked_twice(
    two: tuple[Recorder, Recorder], tmp_path: Path
) -> None:
    slow = 0.01
    for server in two:
        server.script = lambda a: Reply(obey(a).content, delay=slow)
    done = outcome(program(tmp_path, *two))
    assert done.record.status == "ok"
    shares = [len(asked(s)) for s in two]
    assert sum(shares) == N
    assert min(shares) > N / 4
    assert len({*asked(two[0]), *asked(two[1])}) == N


def test_a_slow_server_gets_less(two: tuple[Recorder, Recorder], tmp_path: Path) -> None:
    quick, slow = two
    quick.script = lambda a: Reply(obey(a).content, delay=0.005)
    slow.script = lambda a: Reply(obey(a).content, delay=0.2)
    outcome(program(tmp_path, *two))
    assert len(asked(quick)) > 2 * len(asked(slow)) > 0


ONE_CANNOT = [
    "500", "hangs up", "429 with Retry-After", "not JSON", "401", "404", "405", "redirect",
    "429 for a minute",
]  # fmt: skip


@pytest.mark.parametrize("fault", ONE_CANNOT)
def test_what_one_server_cannot_the_other_does(
    fault: str, two: tuple[Recorder, Recorder], tmp_path: Path
) -> None:
    sick, well = two
    sick.script = lambda a: FAULTS[fault]
    done = outcome(program(tmp_path, *two, retries=1))
    assert done.record.status == "ok", done.reasons
    assert {s for s, n in done.record.counts.items() if n} <= {"ok", "tied"}
    assert len(asked(well)) == N
    assert done.spent.calls == len(asked(sick)) + N  # each try is counted, wherever it went


def test_a_server_that_is_gone_rests_and_the_other_answers(
    two: tuple[Recorder, Recorder], tmp_path: Path
) -> None:
    well = two[0]
    with Recorder() as gone:
        path = program(tmp_path, gone, well, retries=1)
    done = outcome(path)
    assert done.record.status == "ok"
    assert len(asked(well)) == N
    assert N <= done.spent.calls < 2 * N  # not every question was tried there first


def test_where_nobody_answers_all_are_named(tmp_path: Path) -> None:
    with Recorder() as one, Recorder() as other:
        path, urls = program(tmp_path, one, other), (one.url, other.url)
    with pytest.raises(BackendError) as caught:
        outcome(path)
    assert all(url in str(caught.value) for url in urls)


def test_each_server_is_talked_to_in_its_own_way(two: tuple[Recorder, Recorder]) -> None:
    plain, llama = two
    llama.script = lambda a: Reply(
        '{"because": "b", "ratings": {"A": 1, "B": 2}}', headers={"Server": "llama.cpp"}
    )
    plain.script = lambda a: FAULTS["500"] if len(plain.asked) > 2 else obey(a)
    urls = tuple(f"{s.url}/v1" for s in two)
    backend = litellm.litellm(
        Model(name="m", backend="litellm", address="openai/tiny", endpoint=urls, retries=4)
    )
    for key in ("00001", "00002", "00003", "00004"):
        backend.engine.wire.limiter.endpoints[0].in_flight = 0 if key < "00003" else 5
        assert answer_of(backend, key).ok
    backend.close()
    assert all("response_format" in a.json for a in plain.asked)
    assert "response_format" in llama.asked[0].json  # before it was known
    assert all("grammar" in a.json for a in llama.asked[1:])


def test_a_budget_of_tokens_ends_a_run_and_the_next_goes_on(
    two: tuple[Recorder, Recorder], tmp_path: Path
) -> None:
    """18 tokens a call; what was in flight when they were spent is kept and paid."""
    path = program(tmp_path, *two, concurrency=2)
    with Store.open(tmp_path / "a.db") as store:
        first = run(load(path), store, budget=Budget(tokens=180))
        assert first.record.status == "interrupted"
        assert 10 <= first.spent.calls <= 12
        second = run(load(path), store)
    assert (second.record.status, second.spent.calls) == ("ok", N - first.spent.calls)


# --- windows of Ollama


def ollama(url: str, **options: Any) -> litellm.litellm:
    given = {"retries": 0, "timeout": 20.0, **options}
    return litellm.litellm(
        Model(name="m", backend="litellm", address="ollama_chat/small:1b", endpoint=url, **given)
    )


def said(words: int, word: str = "word") -> list[Message]:
    return [{"role": "user", "content": " ".join([word] * words)}]


def windows(fake: FakeOllama) -> list[int]:
    return [b["options"]["num_ctx"] for p, b in fake.asked if p == "/api/chat"]


def test_the_window_is_no_longer_than_the_models_own() -> None:
    fake = FakeOllama(models=[Installed("small:1b", context=3000)])
    with served(fake.handle) as url:
        backend = ollama(url)
        backend.engine.look()
        backend.engine.ask(said(1500), SHAPE, Trail())
        backend.close()
    assert windows(fake) == [3000]


def test_the_window_never_shrinks_as_ollama_would_load_the_model_anew() -> None:
    fake = FakeOllama(models=[Installed("small:1b")])
    with served(fake.handle) as url:
        backend = ollama(url)
        for words in (10, 4000, 10):
            backend.engine.ask(said(words), SHAPE, Trail())
        backend.close()
    first, second, third = windows(fake)
    assert first < second == third


def test_what_cannot_fit_is_not_sent() -> None:
    fake = FakeOllama(models=[Installed("small:1b", context=1000)])
    with served(fake.handle) as url:
        backend = ollama(url)
        backend.engine.look()
        with pytest.raises(
            NoAnswer, match="at least 1,101 tokens, and the model reads 1,000"
        ) as no:
            backend.engine.ask(said(1100), SHAPE, Trail())
        backend.close()
    assert no.value.failure.status == "truncated"
    assert windows(fake) == []


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "cuts silently"])
def test_a_question_that_was_cut_is_never_answered(refuses: bool) -> None:
    """By its words it might fit; by its tokens it does not."""
    fake = FakeOllama(models=[Installed("small:1b", context=4000)], refuses_when_asked=refuses)
    with served(fake.handle) as url:
        backend = ollama(url)
        backend.engine.look()
        with pytest.raises(NoAnswer) as no:
            backend.engine.ask(said(2500, "antidisestablishment"), SHAPE, Trail())
        backend.close()
    assert no.value.failure.status == "truncated"
    assert set(windows(fake)) == {4000}
    assert (len(windows(fake)) == 1) == refuses  # else the server is asked to count


def test_counts_of_what_was_not_in_the_cache_are_no_alarm() -> None:
    """Some servers count the tokens that they had to read, not those that they knew."""
    with Recorder(lambda a: Reply(obey(a).content, tokens=(3, 7))) as server:
        backend = ollama(server.url)
        backend.engine.ask(said(1500), SHAPE, Trail())
        backend.close()


@pytest.mark.parametrize(("allowed", "code"), [([], 3), (["--max-failures", "200"], 0)])
def test_a_run_of_nothing_but_failures_is_no_success(
    allowed: list[str], code: int, tmp_path: Path
) -> None:
    with Recorder(lambda a: Reply("no JSON at all")) as server:
        path = program(tmp_path, server, retries=0)
        command = ["run", str(path), "--store", str(tmp_path / "a.db"), *allowed]
        result = CliRunner().invoke(cli, command)
    assert result.exit_code == code, result.output
