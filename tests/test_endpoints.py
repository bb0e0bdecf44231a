"""What is known of each of several servers, and what one of them may cost the others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from align_dsl.algorithms import rate_alone
from align_dsl.backends import litellm
from align_dsl.engine.adapter import NoAnswer, NotNow, Trail, shape_of
from align_dsl.engine.ask import ask
from align_dsl.engine.limiter import FIRST, SPOILT, Endpoint
from align_dsl.engine.plan import Job
from align_dsl.engine.prompt import messages
from align_dsl.engine.wire import FORGOTTEN_SECONDS, MOST_LOOKS
from align_dsl.errors import BackendError
from align_dsl.language.program import Model, Step
from align_dsl.language.signature import signature
from align_dsl.records.record import Answer
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Attribute, Choice, Scale, Scenario
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply
from tests.test_lm import SHAPE, TALK, answer_of, tasks, wait_for
from tests.test_prompt import FAIRNESS, SCENARIO


@pytest.fixture
def one() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def other() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


def backend(*servers: Recorder, use: str = "openai/tiny", **options: Any) -> litellm.litellm:
    end = "" if use.startswith("ollama") else "/v1"
    urls = tuple(f"{server.url}{end}" for server in servers)
    given = {"retries": 0, "timeout": 20.0, **options}
    return litellm.litellm(Model(name="m", backend="litellm", address=use, endpoint=urls, **given))


def endpoints(one: litellm.litellm) -> list[Endpoint]:
    assert one.engine.wire is not None
    return list(one.engine.wire.endpoints)


def asked_once(one: litellm.litellm, key: str = "00000f") -> Answer:
    try:
        return answer_of(one, key)
    finally:
        one.close()


def unlucky(trail: Trail, one: litellm.litellm) -> Exception:
    with pytest.raises((NoAnswer, NotNow)) as caught:
        one.engine.ask(TALK, SHAPE, trail)
    return caught.value


# --- one that never comes to the end of loading its model


def has_loaded_for(endpoint: Endpoint, seconds: float, one: litellm.litellm) -> float:
    assert one.engine.wire is not None
    now = one.engine.wire.limiter.clock()
    endpoint.loading_since = now - seconds
    return now


def test_one_that_loads_for_ever_is_left_to_itself(one: Recorder, other: Recorder) -> None:
    """It has none in flight, so it would get every job, and fail it."""
    both = backend(one, other)
    late, _ = endpoints(both)
    now = has_loaded_for(late, 21, both)
    got = asked_once(both)
    assert got.ok, got.failure
    assert (len(one.asked), len(other.asked)) == (0, 1)
    assert late.rests_until >= now + FORGOTTEN_SECONDS


def test_where_all_load_for_ever_a_job_fails(one: Recorder, other: Recorder) -> None:
    both = backend(one, other)
    for endpoint in endpoints(both):
        has_loaded_for(endpoint, 21, both)
    got = asked_once(both)
    assert got.failure is not None
    assert "still loading its model after 20 s" in got.failure.message
    assert (got.calls, one.asked, other.asked) == (0, [], [])


def test_one_that_was_late_is_asked_again_after_a_while(one: Recorder) -> None:
    alone = backend(one)
    has_loaded_for(endpoints(alone)[0], 21 + FORGOTTEN_SECONDS, alone)
    assert asked_once(alone).ok


def test_loading_is_not_too_much_at_once(one: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align_dsl.engine.wire.LOADING_SECONDS", 0.01)
    one.answer(*[FAULTS["loading"]] * 5)
    alone = backend(one)
    assert asked_once(alone).calls == 6
    (endpoint,) = endpoints(alone)
    assert not endpoint.has_complained
    assert endpoint.limit == FIRST + 1


# --- who turns all away


@pytest.mark.parametrize("fault", ["401", "404", "405", "redirect"])
def test_where_all_turn_away_nobody_is_asked_for_long(
    fault: str, one: Recorder, other: Recorder
) -> None:
    """The first job learns it from both; for the others, one request each is enough."""
    for server in (one, other):
        server.script = lambda asked: FAULTS[fault]
    both = backend(one, other, retries=2)
    got = [answer_of(both, f"{n:05x}") for n in range(4)]
    both.close()
    assert {a.failure.status for a in got if a.failure} == {"refused"}
    assert [a.calls for a in got] == [2, 1, 1, 1]


def test_a_job_goes_to_the_one_server_that_has_not_failed_it(
    one: Recorder, other: Recorder
) -> None:
    with Recorder() as third:
        for server in (one, other):
            server.script = lambda asked: FAULTS["not JSON"]
        three = backend(one, other, third, retries=2)
        got = asked_once(three)
        assert (got.ok, got.calls) == (True, 3)
        assert [len(s.asked) for s in (one, other, third)] == [1, 1, 1]


def test_who_was_silent_when_looked_for_is_not_asked_at_once(one: Recorder) -> None:
    with Recorder() as gone:
        both = backend(gone, one)
    both.probe()
    got = asked_once(both)
    assert (got.ok, got.calls, len(one.asked)) == (True, 1, 1)


def test_one_that_answers_too_much_at_once_rests_where_another_does_not(
    one: Recorder, other: Recorder
) -> None:
    """Said sooner than any answer comes, and with nothing in flight, it would get every job."""
    one.script = lambda asked: FAULTS["429"]
    both = backend(one, other, retries=1)
    assert asked_once(both).ok
    assert endpoints(both)[0].rests_until > 0


TOO_LONG = Reply(body=b"This model's maximum context length is 10 tokens.", status=500)
USELESS = {
    "too long": TOO_LONG,
    "400": Reply(body=b"unknown field", status=400),
    "filtered": Reply("x", finish="content_filter"),
    **{f: FAULTS[f] for f in ("truncated", "ignores the schema", "error body", "not JSON")},
}


def test_a_question_too_long_says_nothing_of_its_server(one: Recorder, other: Recorder) -> None:
    for server in (one, other):
        server.script = lambda asked: TOO_LONG
    both = backend(one, other, retries=2)
    got = asked_once(both)
    assert got.failure is not None
    assert (got.failure.status, got.calls) == ("truncated", 2)
    assert [e.rests_until for e in endpoints(both)] == [0, 0]


@pytest.mark.parametrize("what", USELESS)
def test_what_one_spoils_is_asked_of_another_and_it_gets_few(
    what: str, one: Recorder, other: Recorder
) -> None:
    """With none in flight, it would get nearly every job, and spoil it."""
    one.script = lambda asked: USELESS[what]
    both = backend(one, other, retries=1)
    got = [answer_of(both, f"{n:05x}") for n in range(40)]
    both.close()
    assert all(a.ok for a in got)
    assert len(other.asked) == 40
    assert SPOILT <= len(one.asked) < 20
    assert {a.calls for a in got} == {1, 2}


@pytest.mark.parametrize("what", ["too long", "400", "truncated", "filtered"])
def test_what_both_refuse_is_the_question_and_soon_asked_once(
    what: str, one: Recorder, other: Recorder
) -> None:
    for server in (one, other):
        server.script = lambda asked: USELESS[what]
    both = backend(one, other, retries=5)
    calls = [answer_of(both, f"{n:05x}").calls for n in range(5)]
    both.close()
    assert calls == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("use", "reply"),
    [
        ("openai/tiny", Reply("x", finish="content_filter", tokens=(900, 512))),
        ("openrouter/tiny", Reply("x", finish="content_filter", tokens=(900, 512))),
        ("openai/tiny", Reply("x", finish="length", tokens=(900, 512))),
        (
            "ollama_chat/tiny",
            Reply(
                body=b'{"message": {"content": "aaaa"}, "done": false, "prompt_eval_count": 900,'
                b' "eval_count": 512}'
            ),
        ),
    ],
)
def test_what_an_answer_of_no_use_came_to_is_counted(use: str, reply: Reply, one: Recorder) -> None:
    one.script = lambda asked: reply
    got = asked_once(backend(one, use=use))
    assert not got.ok
    assert (got.calls, got.prompt_tokens, got.completion_tokens) == (1, 900, 512)


# --- who a server is


def test_a_server_is_looked_at_before_it_is_asked(one: Recorder) -> None:
    """Nobody has probed it, as in the Python API; and vLLM says who it is in no header."""
    one.owner = "vllm"
    alone = backend(one)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: unlucky(Trail(seed=n), alone), range(12)))
    alone.close()
    assert one.looks == 1
    assert all("structured_outputs" in asked.json for asked in one.asked)


def test_a_probe_and_a_run_look_once(one: Recorder) -> None:
    alone = backend(one)
    alone.probe()
    assert asked_once(alone).ok
    assert one.looks == 1


def test_who_did_not_say_is_looked_at_again(one: Recorder) -> None:
    one.owner, one.shy = "vllm", 2  # a request without a body is sent twice
    one.script = lambda asked: FAULTS["500"]
    alone = backend(one)
    for _ in range(2):
        unlucky(Trail(), alone)
    alone.close()
    assert ["structured_outputs" in asked.json for asked in one.asked] == [False, True]


def test_who_never_says_is_taken_at_its_word(one: Recorder) -> None:
    one.shy = 1000
    alone = backend(one)
    for n in range(2 * MOST_LOOKS):
        assert answer_of(alone, f"{n:05x}").ok
    alone.close()
    assert one.looks == 2 * MOST_LOOKS


def test_ollama_is_asked_for_more_at_once_as_it_answers(one: Recorder) -> None:
    """It answers one at a time unless told otherwise, and what waits there waits on our time."""
    alone = backend(one, use="ollama_chat/tiny", concurrency=64)
    assert asked_once(alone).ok
    assert endpoints(alone)[0].limit == FIRST + 1


# --- ratings by expectation


NINE = Attribute(
    name="n", title="n", about="a", high="h", low="l", scale=Scale(low=0, high=9)
)  # fmt: skip
TEN = NINE.model_copy(update={"scale": Scale()})


def weighed(attribute: Attribute) -> Any:
    inputs = {
        "scenario": Scenario(id="", text="Bread.", choices=()),
        "attribute": attribute,
        "choice": Choice(id="A", text="Take it."),
    }
    said = rate_alone.rate_alone(rating="expected").rate.signature.instructions
    shape = shape_of(rate_alone.WeighAlone, inputs)
    return messages(said, shape, inputs), shape


def telling(*tokens: dict[str, float], header: str = "") -> Reply:
    """An answer of so many tokens, each the likeliest of these."""
    content = []
    for one in tokens:
        logs = [{"token": t, "logprob": math.log(p)} for t, p in one.items()]
        content.append({**max(logs, key=lambda t: t["logprob"]), "top_logprobs": logs})  # type: ignore[arg-type, return-value]
    choice = {"message": {"content": "7"}, "logprobs": {"content": content}}
    body = json.dumps({"choices": [choice]}).encode()
    return Reply(body=body, headers={"Server": header} if header else {})


SURE = {"3": 0.3, "7": 0.1, "I": 0.6}


def test_each_server_is_weighed_in_its_own_way(one: Recorder, other: Recorder) -> None:
    """The first was down at the start, so nobody knows what it is; the second is llama.cpp."""
    other.script = lambda asked: telling(SURE, header="llama.cpp")
    both = backend(one, other)
    endpoints(both)[0].rests_until = math.inf
    trail = Trail()
    weights = both.engine.weigh(*weighed(NINE), trail)
    both.close()
    assert weights == pytest.approx({3: 0.75, 7: 0.25} | dict.fromkeys({*range(10)} - {3, 7}, 0))
    (note,) = trail.notes["expected"]
    assert note["mass"] == pytest.approx(0.4)


def test_all_questions_of_one_weighing_go_to_one_server(one: Recorder, other: Recorder) -> None:
    """What another says of the second token is no part of what the first said of the first."""
    both = backend(one, other)

    def digits(asked: Asked) -> Reply:
        endpoints(both)[0].in_flight += 1  # the other one has less to do, from now on
        if asked.json["max_tokens"] == 1:
            return telling({str(n): 0.1 for n in range(10)})
        if len(one.asked) == 2:  # is `10` one token?
            return telling({"1": 1.0}, {"0": 1.0})
        return telling({"1": 1.0}, {"0": 0.4, "<end>": 0.6})

    one.owner, one.script = "vllm", digits
    weights = both.engine.weigh(*weighed(TEN), Trail())
    both.close()
    assert len(one.asked) == 3
    assert other.asked == []
    assert weights[10] == pytest.approx(0.04)


def test_one_that_cannot_tell_is_asked_once_and_the_other_then(
    one: Recorder, other: Recorder
) -> None:
    one.script = lambda asked: Reply("7")
    other.script = lambda asked: telling(SURE, header="llama.cpp")
    both = backend(one, other)
    for _ in range(3):
        assert both.engine.weigh(*weighed(NINE), Trail()).mean == pytest.approx(4)
    other.script = one.script
    both.engine._weighers.clear()
    with pytest.raises(NoAnswer, match="no log-probabilities"):
        both.engine.weigh(*weighed(NINE), Trail())
    both.close()
    assert (len(one.asked), len(other.asked)) == (2, 4)


# --- what a job may cost


def test_retries_are_those_of_a_job_not_of_each_of_its_questions(one: Recorder) -> None:
    """`rate_together` by expectation asks one question for each of two choices."""
    soon = Reply(body=b"", status=503, headers={"Retry-After": "0"})
    one.answer(soon, soon, telling(SURE), soon, soon)
    one.script = lambda asked: telling(SURE)
    alone = backend(one, retries=2)
    step = Step(
        name="rate",
        algorithm=signature(ALGORITHMS, "rate_together"),
        takes={},
        params={"rating": "expected"},
    )
    inputs = {"scenario": SCENARIO, "attribute": FAIRNESS.model_copy(update={"scale": NINE.scale})}
    got = ask(Job("00", step, alone.model, {}, 0), inputs, alone)
    alone.close()
    assert got.failure is not None
    assert (got.calls, got.retries) == (4, 2)


@pytest.mark.parametrize("use", ["openai/tiny", "openrouter/tiny"])
def test_requests_that_nobody_answered_are_counted(use: str, one: Recorder) -> None:
    alone, trail, counts = backend(one, use=use), Trail(), []
    gateway = Reply(body=b"bad gateway", status=502)
    one.answer(FAULTS["hangs up"], gateway, FAULTS["500"], FAULTS["hangs up"], FAULTS["429"])
    for _ in range(5):
        unlucky(trail, alone)
        counts.append(trail.unheard)
    alone.close()
    assert counts == [1, 2, 0, 1, 0]


# --- keys, and the end


@pytest.mark.parametrize("use", ["openai/tiny", "ollama_chat/tiny", "openrouter/tiny"])
@pytest.mark.parametrize("key", ["s3cret\n", "s3\x00cret", "s3cret\r\nX-Other: 1", "s\u00e9cret"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(
    use: str, key: str, one: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "\x00" in key:
        monkeypatch.setattr("os.environ", {"MINE": key})
    else:
        monkeypatch.setenv("MINE", key)
    alone = backend(one, use=use, key="MINE")
    with pytest.raises(BackendError, match="`MINE`") as caught:
        alone.probe()
    got = asked_once(alone)
    assert got.failure is not None
    assert got.failure.status == "refused"
    assert "`MINE`" in got.failure.message
    assert "cret" not in str(caught.value) + got.model_dump_json()
    assert one.asked == []


def test_who_waits_for_a_place_is_sent_away_at_the_end(one: Recorder) -> None:
    """And opens no session anew."""
    one.script = lambda asked: FAULTS["hang"]
    alone = backend(one, concurrency=1, retries=3)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(answer_of, alone, f"{n:05x}") for n in range(4)]
        assert wait_for(lambda: len(one.asked) == 1 and waiting(alone) == 3)
        alone.close()
        got = [f.result(10) for f in futures]
    assert {a.failure.message for a in got if a.failure} == {"the model has been closed"}
    assert len(one.asked) == 1
    assert tasks() == 0
    assert wait_for(lambda: not one._protocols)


def waiting(one: litellm.litellm) -> int:
    assert one.engine.wire is not None
    return len(one.engine.wire.limiter._waiting)


def test_litellm_is_asked_at_one_place(one: Recorder, other: Recorder) -> None:
    with pytest.raises(BackendError, match="`openrouter/` can be asked at one alone"):
        backend(one, other, use="openrouter/tiny")
