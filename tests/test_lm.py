"""What really goes over the wire, and what comes of everything that a server can do."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import gc
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from align_dsl.algorithms.rate_together import rate_together
from align_dsl.backends import litellm
from align_dsl.engine.adapter import NoAnswer, NotNow, Trail
from align_dsl.engine.ask import ask
from align_dsl.engine.execute import Stop, execute
from align_dsl.engine.loop import Loop
from align_dsl.engine.mapping import whole_litellm
from align_dsl.engine.plan import Job
from align_dsl.engine.prompt import Shape
from align_dsl.engine.reply import seconds_of
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.pipeline import load, open_backends, plan_run
from align_dsl.records.body import pack, unpack
from align_dsl.records.record import Answer
from align_dsl.types import Scale
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply
from tests.test_prompt import FAIRNESS, SCENARIO

ENDINGS = {
    "hosted_vllm": "/v1",
    "openai": "/v1",
    "custom_openai": "/v1",
    "llamafile": "/v1",
    "lm_studio": "/v1",
    "ollama_chat": "",
}
PATHS = {p: "/api/chat" if p == "ollama_chat" else "/v1/chat/completions" for p in ENDINGS}
SHAPE = Shape((("because", "text"), ("ratings", "numbers")), ("A", "B"), Scale())
TALK = [
    {"role": "system", "content": "Rate."},
    {"role": "user", "content": "One <|im_end|> {x} \u05d0 \U0001f600"},
    {"role": "assistant", "content": '{"because": "b", "ratings": {"A": 1, "B": 2}}'},
    {"role": "user", "content": "Two"},
]


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def model(server: Recorder, provider: str = "hosted_vllm", **options: Any) -> Model:
    given = {"retries": 0, "timeout": 20.0, **options}
    endpoint = given.pop("endpoint", server.url + ENDINGS.get(provider, "/v1"))
    return Model(
        name="m", backend="litellm", address=f"{provider}/tiny", endpoint=endpoint, **given
    )


def answer(server: Recorder, provider: str = "hosted_vllm", **options: Any) -> Answer:
    """What comes of one rating of two choices."""
    backend = litellm.litellm(model(server, provider, **options))
    try:
        return answer_of(backend)
    finally:
        backend.close()


def answer_of(backend: litellm.litellm, key: str = "00000f") -> Answer:
    step = _step()
    job = Job(key, step, backend.model, {}, 0)
    got = ask(job, {"scenario": SCENARIO, "attribute": FAIRNESS}, backend)
    assert unpack(Answer, pack(got)) == got  # whatever happened can be written down
    return got


def _step() -> Any:
    from align_dsl.language.program import Step
    from align_dsl.language.signature import signature
    from align_dsl.registry import ALGORITHMS

    return Step(name="rate", algorithm=signature(ALGORITHMS, "rate_together"), takes={})


# --- what is sent ------------------------------------------------------------------------------

PROGRAM = """version: 1
program: small
about: Few-shot ratings of three scenarios, twice each.
attributes:
  mercy: {about: Sparing people., high: It spares., low: It does not., scale: {low: 0, high: 4}}
data: {format: jsonl, path: cases.jsonl, exemplars: {format: jsonl, path: shown.jsonl}}
targets: {each: [high]}
deciders:
  rated:
    steps:
      - {name: recall, use: recall, each: [attribute], with: {k: 1, select: fixed, ids: [shown]}}
      - name: rate
        use: rate_together
        each: [attribute]
        samples: 2
        order: shuffle
        takes: {demos: recall}
    decide: {use: closest, take: rate}
models:
  m: {use: PROVIDER/tiny, endpoint: URL, temperature: 0.7, max_tokens: 64}
model: m
metrics: [accuracy]
"""


def run_program(folder: Path, server: Recorder, provider: str) -> list[Asked]:
    url = server.url + ENDINGS[provider]
    (folder / "small.yaml").write_text(
        PROGRAM.replace("PROVIDER", provider).replace("URL", url), encoding="utf-8"
    )
    rows = [
        {
            "id": name,
            "scenario": f"The case of {name}.",
            "choices": [
                {"id": str(i), "text": f"{name} {i}", "labels": {"mercy": i % 5}} for i in range(n)
            ],
        }
        for name, n in (("shown", 2), ("two", 2), ("also", 2), ("three", 3))
    ]
    write_cases(folder, rows)
    loaded = load(folder / "small.yaml")
    backends = open_backends(loaded.program)
    plan = plan_run(loaded, backends)
    before = len(server.asked)
    try:
        answers = execute(plan, backends, Memory()).answers
    finally:
        backends["m"].close()
    assert all(a.ok for a in answers.values())
    asked = server.asked[before:]
    assert len(asked) == len(plan.model_jobs) == 6
    assert {a.constrained for k, a in answers.items() if k in plan.model_jobs} == {
        "format" if provider == "ollama_chat" else "json_schema"
    }
    return asked


def write_cases(folder: Path, rows: list[dict[str, Any]]) -> None:
    """The first row is the exemplar; the others are decided."""
    for file, some in (("shown", rows[:1]), ("cases", rows[1:])):
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"{file}.jsonl").write_text(lines, encoding="utf-8")


class Memory:
    """A store that forgets."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def known(self, keys: Any) -> dict[str, Answer]:
        return {k: self.answers[k] for k in keys if k in self.answers}

    def put(self, answers: Any) -> None:
        self.answers |= {a.key: a for a in answers}

    def claim(self, keys: Any, owner: str, seconds: float) -> set[str]:
        return set(keys)

    def renew(self, owner: str, seconds: float) -> None: ...
    def release(self, owner: str) -> None: ...
    def bury(self, is_dead: object) -> None: ...


@pytest.mark.parametrize("provider", ENDINGS)
def test_what_a_program_sends(provider: str, server: Recorder, tmp_path: Path) -> None:
    asked = run_program(tmp_path, server, provider)
    numbers = {"type": "integer", "minimum": 0, "maximum": 4}
    for one in asked:
        said = one.json
        assert one.path == PATHS[provider]
        assert said["model"] == "tiny"
        assert "authorization" not in one.headers
        assert not said.get("stream")
        assert list(one.schema["properties"]) == ["because", "ratings"]
        ratings = one.schema["properties"]["ratings"]
        assert set(map(str, ratings["properties"].values())) == {str(numbers)}
        assert ratings["required"] == list(ratings["properties"])
        shown = re.findall(r"^([A-Z])\. ", one.messages[-1]["content"], re.M)
        assert shown == list(ratings["properties"])
        if provider == "ollama_chat":
            assert said["format"] == one.schema
            assert said["think"] is False
            assert said["keep_alive"] == "5m"
            assert said["options"]["num_ctx"] == 2048
            assert said["options"]["num_predict"] == 64
            assert said["options"]["temperature"] == 0.7
        else:
            assert said["response_format"]["type"] == "json_schema"
            assert said["response_format"]["json_schema"]["strict"] is True
            assert (said["max_tokens"], said["temperature"]) == (64, 0.7)
    # what servers can reuse is the same to the byte
    assert len({json.dumps(one.messages[:-1]) for one in asked}) == 1
    assert [m["role"] for m in asked[0].messages] == ["system", "user", "assistant", "user"]
    seeds = [_seed(one) for one in asked]
    assert len(set(seeds)) == len(asked)
    again = run_program(tmp_path, server, provider)
    assert sorted(_seed(one) for one in again) == sorted(seeds)
    assert sorted(one.body for one in again) == sorted(one.body for one in asked)


def _seed(asked: Asked) -> int:
    said = asked.json
    seed = said["options"]["seed"] if "options" in said else said["seed"]
    assert isinstance(seed, int)
    return seed


@pytest.mark.parametrize("provider", ENDINGS)
def test_the_body_is_what_litellm_would_send(provider: str, server: Recorder) -> None:
    """But for what its sender puts round it, and what we add for Ollama on purpose.

    Each field has the same bytes once it is written as compact UTF-8, as ours are. For hosted_vllm
    and Ollama litellm puts spaces after `,` and `:`, and spells other letters as `\\u....`. To the
    other providers it sends through OpenAI's package, which has an order of fields of its own;
    within each field, all that a model may notice, the order is the same.
    """
    backend = litellm.litellm(model(server, provider, temperature=0.3, max_tokens=99))
    backend.engine.ask(TALK, SHAPE, Trail(seed=5))
    backend.close()
    ours = server.asked[-1]
    format_ = {"name": "answer", "schema": ours.schema, "strict": True}
    whole_litellm().completion(
        model=f"{provider}/tiny",
        messages=TALK,
        api_base=backend.engine.urls[0],
        api_key="none",
        response_format={"type": "json_schema", "json_schema": format_},
        temperature=0.3,
        max_tokens=99,
        seed=5,
        max_retries=0,
    )
    theirs = server.asked[-1]
    assert theirs is not ours
    assert theirs.path == ours.path
    said, wanted = ours.json, theirs.json
    assert orjson.dumps(said) == ours.body
    if provider == "ollama_chat":
        assert said.pop("think") is False
        assert said.pop("keep_alive") == "5m"
        assert said.pop("truncate") is False
        assert said["options"].pop("num_ctx") == 2048
    assert said.keys() == wanted.keys()
    for name in wanted:
        assert orjson.dumps(said[name]) == orjson.dumps(wanted[name]), name
    if provider in ("hosted_vllm", "ollama_chat"):
        assert list(said) == list(wanted)


def test_ollama_gets_a_window_that_holds_the_prompt(server: Recorder) -> None:
    for text, least in (("word " * 10_000, 10_000), ("\u4e2d" * 10_000, 10_000)):
        backend = litellm.litellm(model(server, "ollama_chat", keep_alive="1h"))
        backend.engine.ask([{"role": "user", "content": text}], SHAPE, Trail())
        backend.close()
        said = server.asked[-1].json
        assert said["options"]["num_ctx"] >= least + 512
        assert said["options"]["num_ctx"] % 2048 == 0
        assert said["keep_alive"] == "1h"
    answer(server, "ollama_chat", context=12345)
    assert server.asked[-1].json["options"]["num_ctx"] == 12345


@pytest.mark.parametrize(("provider", "seed"), [("openrouter", 0xF), ("deepinfra", None)])
def test_other_providers_go_through_litellm_whole(
    provider: str, seed: int | None, server: Recorder, monkeypatch: Any
) -> None:
    """One that takes no seed gets none; a schema is sent or the question refused."""
    monkeypatch.setenv("SOME_KEY", "s3cret-of-mine")
    got = answer(server, provider, key="SOME_KEY")
    assert got.ok, got.failure
    assert (got.calls, got.prompt_tokens, got.completion_tokens) == (1, 11, 7)
    (asked,) = server.asked
    assert asked.schema["properties"]["ratings"]["required"] == ["A", "B"]
    assert asked.json.get("seed") == seed
    assert asked.headers["authorization"] == "Bearer s3cret-of-mine"


@pytest.mark.parametrize(
    ("fault", "status", "calls"),
    [
        ("429", "unreachable", 2),
        ("503", "unreachable", 2),
        ("hang", "timeout", 2),
        ("cut body", "unreachable", 2),
        ("error body", "refused", 1),
        ("not JSON", "refused", 1),
    ],
)
def test_faults_behind_litellm_are_failures(
    fault: str, status: str, calls: int, server: Recorder
) -> None:
    server.script = lambda asked: FAULTS[fault]
    got = answer(server, "openrouter", retries=1, timeout=0.3 if fault == "hang" else 20)
    assert got.failure is not None
    assert (got.failure.status, got.calls, len(server.asked)) == (status, calls, calls)


# --- keys --------------------------------------------------------------------------------------


def test_a_key_is_sent_only_where_one_is_named(server: Recorder, monkeypatch: Any) -> None:
    for name in ("OPENAI_API_KEY", "HOSTED_VLLM_API_KEY", "OLLAMA_API_KEY"):
        monkeypatch.setenv(name, "not-asked-for")
    for provider in ENDINGS:
        answer(server, provider)
    assert all("authorization" not in a.headers for a in server.asked)
    assert all(b"not-asked-for" not in a.body for a in server.asked)
    monkeypatch.setenv("MINE", "s3cret-of-mine")
    answer(server, key="MINE")
    assert server.asked[-1].headers["authorization"] == "Bearer s3cret-of-mine"


@pytest.mark.parametrize("provider", ["hosted_vllm", "ollama_chat", "openrouter"])
@pytest.mark.parametrize("status", [200, 401, 429])
def test_a_key_that_comes_back_is_not_kept(
    provider: str, status: int, server: Recorder, monkeypatch: Any, caplog: Any, capfd: Any
) -> None:
    monkeypatch.setenv("MINE", "s3cret-of-mine")
    body = json.dumps({"error": {"message": "wrong key: s3cret-of-mine"}}).encode()
    server.script = lambda asked: Reply(body=body, status=status)
    # what litellm writes when debugging is asked of it is its own
    with caplog.at_level(logging.WARNING if provider == "openrouter" else logging.DEBUG):
        got = answer(server, provider, key="MINE")
    assert not got.ok
    assert "s3cret-of-mine" not in got.model_dump_json()
    assert "s3cret-of-mine" not in caplog.text
    assert "s3cret-of-mine" not in "".join(capfd.readouterr())


def test_a_key_that_a_model_says_is_not_kept(server: Recorder, monkeypatch: Any) -> None:
    monkeypatch.setenv("MINE", "s3cret-of-mine")
    server.answer('{"because": "s3cret-of-mine", "ratings": {"A": 1, "B": 2}}')
    got = answer(server, key="MINE")
    assert got.ok
    assert "s3cret" not in got.model_dump_json()


def test_a_missing_key_is_said_before_anything_is_asked(server: Recorder) -> None:
    with pytest.raises(BackendError, match="NO_SUCH_KEY"):
        litellm.litellm(model(server, key="NO_SUCH_KEY")).probe()


def test_an_endpoint_with_a_password_is_refused(server: Recorder) -> None:
    with pytest.raises(BackendError, match="user name") as wrong:
        litellm.litellm(model(server, endpoint="http://me:hunter2@127.0.0.1:1/v1"))
    assert "hunter2" not in str(wrong.value)


def test_redirects_are_not_followed(server: Recorder, monkeypatch: Any) -> None:
    monkeypatch.setenv("MINE", "s3cret-of-mine")
    with Recorder() as other:
        for status in (301, 302, 303, 307, 308):
            server.answer(Reply(body=b"", status=status, headers={"Location": other.url}))
            got = answer(server, key="MINE", retries=2)
            assert got.failure is not None
            assert (got.failure.status, got.calls) == ("refused", 1)
        assert other.asked == []


def test_cookies_are_not_kept(server: Recorder) -> None:
    server.answer(Reply("{}", headers={"Set-Cookie": "a=b"}))
    backend = litellm.litellm(model(server))
    answer_of(backend)
    answer_of(backend)
    backend.close()
    assert "cookie" not in server.asked[-1].headers


# --- what servers do ---------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["hosted_vllm", "ollama_chat"])
@pytest.mark.parametrize(
    ("fault", "status", "calls", "said"),
    [
        ("429", "unreachable", 2, "answered 429"),
        ("429 with Retry-After", "unreachable", 2, "answered 429"),
        ("503", "unreachable", 2, "too many requests wait"),
        ("500", "refused", 2, "odd text"),
        ("hang", "timeout", 2, "no answer within 0.3 s"),
        ("cut body", "unreachable", 2, "hung up"),
        ("error body", "refused", 2, "model not found"),
        ("not JSON", "invalid", 2, "no answer"),
        ("redirect", "refused", 1, "redirects"),
    ],
)
def test_faults_are_told_apart_and_counted(
    provider: str, fault: str, status: str, calls: int, said: str, server: Recorder
) -> None:
    server.script = lambda asked: FAULTS[fault]
    got = answer(server, provider, retries=1, timeout=0.3 if fault == "hang" else 20)
    assert got.failure is not None
    assert got.failure.status == status
    assert said in got.failure.message
    assert (got.calls, got.retries, len(server.asked)) == (calls, calls - 1, calls)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_will_not_change_is_asked_once(status: int, server: Recorder) -> None:
    server.script = lambda asked: Reply(body=b'{"error": "no"}', status=status)
    got = answer(server, retries=5)
    assert got.failure is not None
    assert (got.failure.status, got.calls, got.failure.raw) == ("refused", 1, '{"error": "no"}')


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_bounded_whatever_goes_wrong(retries: int, server: Recorder) -> None:
    soon = {"Retry-After": "0"}
    server.script = lambda asked: Reply(body=b"", status=503, headers=soon)
    assert answer(server, retries=retries).calls == retries + 1
    # a wrong answer and a busy server draw on the same allowance
    server.answer(Reply("nonsense"), *[Reply(body=b"", status=429, headers=soon)] * 9)
    got = answer(server, retries=retries)
    assert (got.calls, got.retries) == (retries + 1, retries)


def test_a_server_that_comes_round_is_answered(server: Recorder) -> None:
    server.answer(FAULTS["429 with Retry-After"], FAULTS["429 with Retry-After"])
    begun = time.perf_counter()
    got = answer(server, retries=2)
    assert got.ok
    assert (got.calls, got.retries) == (3, 2)
    assert time.perf_counter() - begun >= 0.4


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (None, None),
        ("", None),
        ("2", 2.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e9", 60.0),
        ("inf", 60.0),
        ("nan", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after(written: str | None, seconds: float | None) -> None:
    assert seconds_of(written) == seconds


def test_retry_after_as_a_date() -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert 25 < (seconds_of(email.utils.format_datetime(then, usegmt=True)) or 0) < 31


def test_pauses_grow_and_differ() -> None:
    from align_dsl.types import Failure

    busy = NotNow(Failure(status="unreachable", message=""))
    pauses = [busy.pause(n) for n in range(8)]
    assert pauses[0] < 1 < pauses[2] < 4 < pauses[4]
    assert max(pauses) < 11
    assert busy.pause(0) != busy.pause(0)


def test_nobody_there() -> None:
    with Recorder() as server:
        there = model(server)
    backend = litellm.litellm(there)
    got = answer_of(backend)
    backend.close()
    assert got.failure is not None
    assert got.failure.status == "unreachable"
    assert "cannot be reached" in got.failure.message
    with pytest.raises(BackendError, match="cannot be reached"):
        backend.probe()


MESSAGES: dict[str, tuple[Any, str, str]] = {
    "null": (None, "invalid", "empty"),
    "empty": ("", "invalid", "empty"),
    "a list of parts": ([{"type": "text", "text": "{}"}], "invalid", "no answer"),
    "a number": (7, "invalid", "no answer"),
    "an object": ({"because": "b"}, "invalid", "no answer"),
    "true": (True, "invalid", "no answer"),
}


@pytest.mark.parametrize("provider", ["hosted_vllm", "ollama_chat"])
@pytest.mark.parametrize(("content", "status", "said"), MESSAGES.values(), ids=MESSAGES)
def test_content_that_is_no_text(
    provider: str, content: Any, status: str, said: str, server: Recorder
) -> None:
    server.script = lambda asked: Reply(content)
    got = answer(server, provider)
    assert got.failure is not None
    assert got.failure.status == status
    assert said in got.failure.message


BODIES: dict[str, bytes] = {
    "a list": b"[]",
    "a string": b'"hello"',
    "null": b"null",
    "no choices": b'{"choices": []}',
    "choices null": b'{"choices": null}',
    "no message": b'{"choices": [{}]}',
    "message null": b'{"choices": [{"message": null}]}',
    "usage is a list": b'{"choices": [{"message": {"content": "{}"}}], "usage": [1]}',
    "not UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "half a character": b'{"choices": [{"message": {"content": "\\ud800"}}]}',
    "control character": b'{"choices": [{"message": {"content": "\x01"}}]}',
    "nothing": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_that_are_no_answer(body: bytes, server: Recorder) -> None:
    server.script = lambda asked: Reply(body=body)
    got = answer(server)
    assert got.failure is not None
    assert got.failure.status == "invalid"
    assert got.failure.raw == body.decode("utf-8", "replace")


@pytest.mark.parametrize("usage", [{"prompt_tokens": "many"}, {"prompt_tokens": -1}, {}, None])
def test_odd_token_counts_cost_nothing(usage: Any, server: Recorder) -> None:
    content = '{"because": "b", "ratings": {"A": 1, "B": 2}}'
    said = {"choices": [{"message": {"content": content}}], "usage": usage}
    server.answer(Reply(body=json.dumps(said).encode()))
    got = answer(server)
    assert got.ok
    assert (got.prompt_tokens, got.completion_tokens) == (0, 0)


def test_a_refusal_is_a_refusal(server: Recorder) -> None:
    said = {"choices": [{"message": {"content": None, "refusal": "I will not."}}]}
    server.answer(Reply(body=json.dumps(said).encode()))
    failure = answer(server, retries=3).failure
    assert failure is not None
    assert (failure.status, failure.raw) == ("refused", "I will not.")
    server.answer(Reply("{", finish="content_filter"))
    failure = answer(server, retries=3).failure
    assert failure is not None
    assert failure.status == "refused"


@pytest.mark.parametrize("provider", ["hosted_vllm", "ollama_chat", "openrouter"])
def test_half_a_character_in_a_question_is_refused(provider: str, server: Recorder) -> None:
    broken = SCENARIO.model_copy(update={"text": "half \ud83d here"})
    backend = litellm.litellm(model(server, provider))
    job = Job("00", _step(), backend.model, {}, 0)
    got = ask(job, {"scenario": broken, "attribute": FAIRNESS}, backend)
    backend.close()
    assert got.failure is not None
    assert got.failure.status == "refused"
    assert unpack(Answer, pack(got)) == got
    assert server.asked == []


# --- many at once ------------------------------------------------------------------------------


def test_connections_are_used_again(server: Recorder) -> None:
    backend = litellm.litellm(model(server))
    for _ in range(30):
        assert answer_of(backend).ok
    backend.close()
    assert (len(server.asked), server.connections) == (30, 1)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("provider", ["hosted_vllm", "openrouter"])
def test_no_more_at_once_than_allowed(provider: str, concurrency: int, server: Recorder) -> None:
    content = '{"because": "b", "ratings": {"A": 1, "B": 2}}'
    server.script = lambda asked: Reply(content, delay=0.02)
    backend = litellm.litellm(model(server, provider, concurrency=concurrency))
    answer_of(backend)  # litellm is imported before the clock runs
    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda n: answer_of(backend, f"{n:06x}"), range(24)))
    backend.close()
    assert all(a.ok for a in got)
    assert server.most_together == concurrency
    assert sorted(_seed(a) for a in server.asked[1:]) == list(range(24))


def test_one_thread_talks_for_all(server: Recorder) -> None:
    backends = [litellm.litellm(model(server)) for _ in range(3)]
    with ThreadPoolExecutor(9) as pool:
        got = list(pool.map(answer_of, backends * 20))
    for backend in backends:
        backend.close()
    assert all(a.ok for a in got)
    assert len([t for t in threading.enumerate() if t.name == "wire"]) == 1


def test_closing_leaves_nothing_open(server: Recorder) -> None:
    backend = litellm.litellm(model(server))
    answer_of(backend)
    backend.close()
    backend.close()
    gc.collect()  # an open session or transport would warn, and warnings are errors here
    assert wait_for(lambda: not server._protocols)
    got = answer_of(backend)
    assert got.failure is not None
    assert (got.failure.status, got.calls) == ("unreachable", 0)


def test_closing_ends_what_is_in_flight(server: Recorder) -> None:
    server.script = lambda asked: FAULTS["hang"]
    backend = litellm.litellm(model(server, retries=3))
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(answer_of, backend) for _ in range(4)]
        assert wait_for(lambda: len(server.asked) == 4)
        backend.close()
        statuses = {f.result(10).failure.status for f in futures}  # type: ignore[union-attr]
    assert statuses == {"unreachable"}
    assert tasks() == 0


def test_a_stopped_run_leaves_nothing_behind(server: Recorder, tmp_path: Path) -> None:
    server.script = lambda asked: FAULTS["hang"]
    text = PROGRAM.replace("PROVIDER", "hosted_vllm").replace("URL", f"{server.url}/v1")
    text = text.replace("max_tokens: 64", "timeout: 1, retries: 0, concurrency: 3")
    (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
    choices = [{"id": str(i), "text": str(i), "labels": {"mercy": i}} for i in range(2)]
    rows = [{"id": n, "scenario": n, "choices": choices} for n in ("shown", *"abcdefgh")]
    write_cases(tmp_path, rows)
    loaded = load(tmp_path / "small.yaml")
    backends = open_backends(loaded.program)
    plan = plan_run(loaded, backends)
    stop, store = Stop(), Memory()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute, plan, backends, store, stop=stop)
        assert wait_for(lambda: len(server.asked) == 3)
        stop.now("enough")
        running.result(10)
    backends["m"].close()
    assert len(server.asked) == 3
    assert store.answers == {}  # of those in flight it is not known whether they would have come
    assert not [t for t in threading.enumerate() if t.name == "job"]
    assert tasks() == 0


def test_an_interrupted_wait_cancels_its_request() -> None:
    """Ctrl-C reaches the thread that waits; what it waited for must not go on."""
    loop, ended = Loop.shared(), threading.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    class Interrupted:
        def __init__(self) -> None:
            self.times = 0

        def acquire(self) -> None:
            self.times += 1
            if self.times > 1:
                wait_for(lambda: tasks() == 1)
                raise KeyboardInterrupt

        def release(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_dsl.engine.loop.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.do(forever())
    assert ended.wait(5)


def test_work_that_fails_fails_where_it_was_asked_for() -> None:
    async def wrong() -> None:
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        Loop.shared().do(wrong())


def test_dspy_can_ask_in_its_own_way(server: Recorder) -> None:
    """Optimizers that write prompts come through `dspy.LM`, without a schema."""
    backend = litellm.litellm(model(server, retries=1))
    server.answer(FAULTS["429 with Retry-After"], "hello")
    assert backend.lm("say hello", temperature=0.9)[0] == "hello"
    backend.close()
    said = server.asked[-1].json
    assert said["messages"] == [{"role": "user", "content": "say hello"}]
    assert said["temperature"] == 0.9
    assert "response_format" not in said
    assert len(server.asked) == 2


def test_a_copy_of_an_lm_may_be_warmer(server: Recorder) -> None:
    """Bootstrapping asks copies of the model at another temperature."""
    import dspy

    backend = litellm.litellm(model(server))
    with dspy.context(lm=backend.lm.copy(temperature=0.9), adapter=backend.adapter):
        rate_together()(scenario=SCENARIO, attribute=FAIRNESS)
    backend.close()
    assert server.asked[-1].json["temperature"] == 0.9


def wait_for(what: Any, seconds: float = 10) -> bool:
    end = time.perf_counter() + seconds
    while not what() and time.perf_counter() < end:
        time.sleep(0.005)
    return bool(what())


def tasks() -> int:
    """Tasks in the shared loop."""
    return len(asyncio.all_tasks(Loop.shared().loop))


def test_errors_of_one_question_do_not_reach_another() -> None:
    """NoAnswer carries a value, so it can be kept and compared."""
    from align_dsl.types import Failure

    failure = Failure(status="refused", message="no")
    assert NoAnswer(failure).failure == failure
