"""How answers are read: strictly, once, and beside what stock DSPy makes of the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from pydantic import Field, create_model

from align_dsl.algorithms.pick import pick
from align_dsl.algorithms.rate_together import rate_together
from align_dsl.backends import litellm
from align_dsl.engine.adapter import TRAIL, NoAnswer, Trail, TypedAdapter
from align_dsl.engine.prompt import Invalid, Shape, parse
from align_dsl.types import Failure, Scale
from tests.servers.recorder import Recorder, Reply
from tests.test_lm import answer, model
from tests.test_prompt import FAIRNESS, SCENARIO

GOOD = '{"because": "b", "ratings": {"A": 7, "B": 0}}'
RATINGS = Shape((("because", "text"), ("ratings", "numbers")), ("A", "B"), Scale())
LABEL = Shape((("because", "text"), ("choice", "label")), ("A", "B", "AA"))
NUMBER = Shape((("because", "text"), ("rating", "number")), (), Scale())
FRACTION = Shape((("because", "text"), ("rating", "number")), (), Scale(low=-1, high=1, step=0.1))


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


WRONG: dict[str, tuple[str, str]] = {
    "nothing": ("", "empty"),
    "spaces": (" \n", "empty"),
    "prose": ("I would rate A 7 and B 0.", "not one JSON object"),
    "thoughts in front": (f"<think>hm</think>{GOOD}", "not one JSON object"),
    "a code fence": (f"```json\n{GOOD}\n```", "not one JSON object"),
    "prose behind": (f"{GOOD} There.", "not one JSON object"),
    "two objects": (f"{GOOD}{GOOD}", "not one JSON object"),
    "two objects in lines": (f"{GOOD}\n{GOOD}", "not one JSON object"),
    "cut off in a string": ('{"because": "it is cu', "not one JSON object"),
    "cut off after a value": ('{"because": "b", "ratings": {"A": 7', "not one JSON object"),
    "single quotes": (GOOD.replace('"', "'"), "not one JSON object"),
    "a trailing comma": ('{"because": "b", "ratings": {"A": 7, "B": 0},}', "not one JSON object"),
    "a comment": (f"{GOOD[:-1]} /* x */}}", "not one JSON object"),
    "a byte order mark": (f"\ufeff{GOOD}", "not one JSON object"),
    "raw control characters": (GOOD.replace('"b"', '"a\nb"'), "not one JSON object"),
    "a null character": (GOOD.replace('"b"', '"a\x00b"'), "not one JSON object"),
    "NaN": (GOOD.replace("7", "NaN"), "NaN is not a number"),
    "Infinity": (GOOD.replace("7", "-Infinity"), "-Infinity is not a number"),
    "infinitely deep": ("[" * 100_000, "not one JSON object"),
    "a key twice": ('{"because": "b", "because": "c", "ratings": {}}', "'because' is there twice"),
    "a rating twice": (
        '{"because": "b", "ratings": {"A": 1, "A": 2, "B": 0}}',
        "'A' is there twice",
    ),
    "a list": (f"[{GOOD}]", "not a JSON object"),
    "a string": (json.dumps(GOOD), "not a JSON object"),
    "a number": ("7", "not a JSON object"),
    "null": ("null", "not a JSON object"),
    "a key missing": ('{"ratings": {"A": 7, "B": 0}}', "lacks because"),
    "keys in capitals": (GOOD.replace("because", "Because"), "lacks because"),
    "a key more": ('{"because": "b", "ratings": {"A": 7, "B": 0}, "x": 1}', "has 'x'"),
    "reasons null": (GOOD.replace('"b"', "null"), "`because` is not text"),
    "reasons a list": (GOOD.replace('"b"', '["b"]'), "`because` is not text"),
    "half a character": (GOOD.replace('"b"', '"\\ud800"'), "half a character"),
    "half a character in a key": (GOOD.replace('"B"', '"\\ud800"'), "each of A, B"),
    "a rating missing": ('{"because": "b", "ratings": {"A": 7}}', "each of A, B"),
    "a rating more": ('{"because": "b", "ratings": {"A": 7, "B": 0, "C": 1}}', "each of A, B"),
    "labels in small letters": (GOOD.lower(), "each of A, B"),
    "ratings in a list": ('{"because": "b", "ratings": [7, 0]}', "each of A, B"),
    "ratings null": ('{"because": "b", "ratings": null}', "each of A, B"),
    "too high": (GOOD.replace("7", "99"), "`ratings.A` is 99, not from 0 to 10"),
    "just too high": (GOOD.replace("7", "10.0000001"), "not from 0 to 10"),
    "too low": (GOOD.replace("7", "-1"), "`ratings.A` is -1, not from 0 to 10"),
    "too high for a float": (GOOD.replace("7", "1e999"), "not from 0 to 10"),
    "400 digits": (GOOD.replace("7", "7" * 400), "not from 0 to 10"),
    "5,000 digits": (GOOD.replace("7", "7" * 5000), "not one JSON object"),
    "between two numbers": (GOOD.replace("7", "7.5"), "not a whole number"),
    "a number in quotes": (GOOD.replace("7", '"7"'), "not a number"),
    "a word": (GOOD.replace("7", '"high"'), "not a number"),
    "true": (GOOD.replace("7", "true"), "not a number"),
    "null for a number": (GOOD.replace("7", "null"), "not a number"),
    "an object for a number": (GOOD.replace("7", '{"value": 7}'), "not a number"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_not_the_answer_is_invalid(text: str, said: str, server: Recorder) -> None:
    """Asked once, kept as it came, never repaired."""
    with pytest.raises(Invalid) as wrong:
        parse(RATINGS, text)
    assert said in str(wrong.value)
    server.answer(text)
    got = answer(server)
    assert got.failure == Failure(status="invalid", message=str(wrong.value), raw=text)
    assert (got.output, got.calls, got.retries) == (None, 1, 0)


@pytest.mark.parametrize(
    "choice", ["a", "A.", " A", "C", "", "AAA", "Give it to A", None, 1, ["A"], {}]
)
def test_only_a_label_is_a_label(choice: Any) -> None:
    with pytest.raises(Invalid, match="not one of A, B, AA"):
        parse(LABEL, json.dumps({"because": "b", "choice": choice}))


TAKEN: dict[str, tuple[Shape, str, dict[str, Any]]] = {
    "as asked": (RATINGS, GOOD, {"because": "b", "ratings": {"A": 7.0, "B": 0.0}}),
    "spaces around": (RATINGS, f" \n{GOOD}\n", {"because": "b", "ratings": {"A": 7.0, "B": 0.0}}),
    "another order": (
        RATINGS,
        '{"ratings": {"B": 0, "A": 7}, "because": "b"}',
        {"because": "b", "ratings": {"A": 7.0, "B": 0.0}},
    ),
    # JSON Schema: a number without a fraction is an integer however it is written
    "7.0": (NUMBER, '{"because": "b", "rating": 7.0}', {"because": "b", "rating": 7.0}),
    "1e1": (NUMBER, '{"because": "b", "rating": 1e1}', {"because": "b", "rating": 10.0}),
    "an end": (FRACTION, '{"because": "", "rating": -1}', {"because": "", "rating": -1.0}),
    "a fraction": (FRACTION, '{"because": "", "rating": 0.3}', {"because": "", "rating": 0.3}),
    "a label": (LABEL, '{"because": "b", "choice": "AA"}', {"because": "b", "choice": "AA"}),
    "escapes": (
        LABEL,
        '{"because": "\\ud83d\\ude00 \\u0000 \\n", "choice": "A"}',
        {"because": "\U0001f600 \x00 \n", "choice": "A"},
    ),
    # nothing is decided by reasons, so their length is the server's affair
    "long reasons": (
        LABEL,
        json.dumps({"because": "w " * 5000, "choice": "A"}),
        {"because": "w " * 5000, "choice": "A"},
    ),
}


@pytest.mark.parametrize(("shape", "text", "means"), TAKEN.values(), ids=TAKEN)
def test_what_is_an_answer(shape: Shape, text: str, means: dict[str, Any]) -> None:
    read = parse(shape, text)
    assert read == means
    assert list(read) == [name for name, _ in shape.outputs]


@pytest.mark.parametrize("provider", ["hosted_vllm", "ollama_chat"])
def test_cut_off_is_cut_off_even_where_it_can_be_read(provider: str, server: Recorder) -> None:
    for text in ('{"because": "it is cu', GOOD):
        server.answer(Reply(text, finish="length"))
        got = answer(server, provider, retries=5)
        assert got.failure is not None
        assert (got.failure.status, got.failure.raw) == ("truncated", text)
        assert got.calls == 1  # it would be cut off again


# --- the one visible retry ---------------------------------------------------------------------


def test_a_mistake_is_shown_once_and_counted(server: Recorder) -> None:
    bad = GOOD.replace("7", "99")
    server.answer(bad, GOOD)
    got = answer(server, retries=2)
    assert got.ok
    assert (got.calls, got.retries, got.raw) == (2, 1, GOOD)
    assert (got.prompt_tokens, got.completion_tokens) == (22, 14)  # both are paid for
    first, second = (a.messages for a in server.asked)
    assert second[: len(first)] == first
    assert [m["role"] for m in second[len(first) :]] == ["assistant", "user"]
    assert second[-2]["content"] == bad
    assert "`ratings.A` is 99, not from 0 to 10" in second[-1]["content"]
    assert server.asked[0].schema == server.asked[1].schema


def test_a_mistake_is_not_shown_twice(server: Recorder) -> None:
    server.answer("one", "two", GOOD)
    got = answer(server, retries=5)
    assert got.failure is not None
    assert (got.failure.status, got.failure.raw, got.calls) == ("invalid", "two", 2)


def test_a_very_long_mistake_is_shown_in_part(server: Recorder) -> None:
    server.answer("x" * 100_000, GOOD)
    assert answer(server, retries=1).ok
    assert len(server.asked[1].body) < 10_000


def test_an_empty_mistake_can_be_shown(server: Recorder) -> None:
    server.answer(Reply(None), GOOD)
    got = answer(server, retries=1)
    assert got.ok
    assert all(m["content"] for m in server.asked[1].messages)  # some servers refuse empty turns


def test_no_retry_where_none_is_allowed(server: Recorder) -> None:
    server.answer("nonsense", GOOD)
    got = answer(server, retries=0)
    assert not got.ok
    assert len(server.asked) == got.calls == 1


# --- beside stock DSPy -------------------------------------------------------------------------


def stock(server: Recorder, adapter: Any) -> Any:
    """Stock DSPy's answer to the same question from the same server."""
    number = (int, Field(ge=0, le=10))
    ratings = create_model("Ratings", A=number, B=number)
    outputs = {
        "because": (str, dspy.OutputField()),
        "rating": (int, dspy.OutputField(ge=0, le=10)),
        "ratings": (ratings, dspy.OutputField()),
    }
    asked = dspy.Signature({"scenario": (str, dspy.InputField()), **outputs}, "Rate.")
    lm = dspy.LM(
        "hosted_vllm/tiny", api_base=f"{server.url}/v1", api_key="none", cache=False, num_retries=0
    )
    with dspy.context(lm=lm, adapter=adapter, disable_history=True):
        return dspy.Predict(asked)(scenario=SCENARIO.text)


def test_dspy_sends_no_schema_and_we_do(server: Recorder) -> None:
    server.answer('{"because": "b", "rating": 1, "ratings": {"A": 1, "B": 2}}')
    stock(server, dspy.JSONAdapter())
    assert server.asked[-1].json.get("response_format", {}).get("type") != "json_schema"
    answer(server)
    assert server.asked[-1].json["response_format"]["type"] == "json_schema"


def test_dspy_takes_99_of_10_and_we_do_not(server: Recorder) -> None:
    server.answer('{"because": "b", "rating": 99, "ratings": {"A": 7, "B": 0}}')
    assert stock(server, dspy.JSONAdapter()).rating == 99
    server.answer(GOOD.replace("7", "99"))
    got = answer(server)
    assert got.failure is not None
    assert got.failure.status == "invalid"


def test_dspy_takes_an_answer_cut_off_in_a_string_and_we_do_not(server: Recorder) -> None:
    cut = '{"rating": 3, "ratings": {"A": 7, "B": 0}, "because": "they had wai'
    server.answer(Reply(cut, finish="length"))
    assert stock(server, dspy.JSONAdapter()).because == "they had wai"
    for finish, status in (("length", "truncated"), ("stop", "invalid")):
        server.answer(Reply('{"ratings": {"A": 7, "B": 0}, "because": "they had wai', finish))
        got = answer(server)
        assert got.failure is not None
        assert got.failure.status == status


def test_dspy_asks_twice_without_a_word_and_we_do_not(server: Recorder) -> None:
    server.answer("nonsense", '{"because": "b", "rating": 1, "ratings": {"A": 1, "B": 2}}')
    assert stock(server, dspy.ChatAdapter()).rating == 1
    assert len(server.asked) == 2
    server.answer("nonsense")
    got = answer(server)
    assert not got.ok
    assert (len(server.asked), got.calls) == (3, 1)


def test_dspy_takes_the_last_of_two_keys_and_we_do_not(server: Recorder) -> None:
    twice = '{"because": "b", "rating": 1, "rating": 9, "ratings": {"A": 1, "B": 2}}'
    server.answer(twice)
    assert stock(server, dspy.JSONAdapter()).rating == 9
    server.answer(GOOD.replace('"A": 7', '"A": 7, "A": 1'))
    assert not answer(server).ok


# --- with LMs that are not ours ----------------------------------------------------------------


@pytest.mark.parametrize("content", [GOOD, GOOD.replace("7", "99"), "nonsense"])
def test_a_stock_lm_is_held_to_the_schema_as_well(content: str, server: Recorder) -> None:
    """What a caller configures with `dspy.configure(lm=...)` goes through the same adapter."""
    server.answer(content)
    lm = dspy.LM(
        "hosted_vllm/tiny", api_base=f"{server.url}/v1", api_key="none", cache=False, num_retries=0
    )
    trail = Trail(seed=7)
    token = TRAIL.set(trail)
    try:
        with dspy.context(lm=lm, adapter=TypedAdapter(0), disable_history=True):
            if content == GOOD:
                ratings = rate_together()(scenario=SCENARIO, attribute=FAIRNESS)
                assert [r.value for r in ratings] == [0.7, 0.0]
            else:
                with pytest.raises(NoAnswer) as no:
                    rate_together()(scenario=SCENARIO, attribute=FAIRNESS)
                assert no.value.failure.status == "invalid"
    finally:
        TRAIL.reset(token)
    assert trail.calls == 1
    said = server.asked[-1].json
    assert said["seed"] == 7
    assert server.asked[-1].schema["properties"]["ratings"]["required"] == ["A", "B"]


def test_a_stock_lm_that_fails_is_a_failure(server: Recorder) -> None:
    server.script = lambda asked: Reply(body=b'{"error": "no such model"}', status=404)
    lm = dspy.LM(
        "hosted_vllm/tiny", api_base=f"{server.url}/v1", api_key="none", cache=False, num_retries=0
    )
    with dspy.context(lm=lm, adapter=TypedAdapter(0)), pytest.raises(NoAnswer) as no:
        pick()(scenario=SCENARIO)
    assert no.value.failure.status == "refused"


def test_the_adapter_can_show_its_messages(server: Recorder) -> None:
    """DSPy's own tools ask an adapter for them."""
    backend = litellm.litellm(model(server))
    said = backend.adapter.format(rate_together().rate.signature, [], {"scenario": SCENARIO})
    backend.close()
    assert [m["role"] for m in said] == ["system", "user"]
