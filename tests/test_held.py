"""What holds an answer to its shape, for each kind of server that takes more than a schema."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align_dsl.engine.adapter import Trail
from align_dsl.engine.grammar import PATTERN, grammar, held, held_to
from align_dsl.engine.prompt import (
    LONGEST_TEXT,
    MOST_LISTED,
    Invalid,
    Kind,
    Shape,
    answer,
    layout,
    parse,
    schema,
    written,
)
from align_dsl.engine.quirks import GUIDANCE, LLAMA_CPP, OLLAMA, PLAIN, VLLM, dialect
from align_dsl.engine.wire import MOST_LOOKS
from align_dsl.types import Scale
from tests.servers.fake_ollama import served
from tests.servers.recorder import Asked, Recorder, Reply
from tests.servers.sick import Sick
from tests.test_doctor import look
from tests.test_endpoints import backend
from tests.test_lm import SHAPE, TALK

SAID = '{"because": "so", "ratings": {"A": 1, "B": 2}}'
TENTHS = Scale(low=0, high=1, step=0.1)
BECAUSE: tuple[str, Kind] = ("because", "text")
SHAPES = {
    "together": Shape((BECAUSE, ("ratings", "numbers")), ("A", "B"), Scale()),
    "in tenths": Shape((BECAUSE, ("ratings", "numbers")), ("A", "B"), TENTHS),
    "pick": Shape((BECAUSE, ("choice", "label")), ("A", "B", "C")),
    "alone": Shape((BECAUSE, ("rating", "number")), (), Scale(low=-3, high=3)),
    "weighed": Shape((("weights", "weights"),), (), Scale()),
}


def layout_of(shape: Shape) -> dict[str, Any]:
    ((field, value),) = held(shape, GUIDANCE)
    assert field == "structured_outputs"
    said: dict[str, Any] = json.loads(json.loads(orjson.dumps(value))["json"])
    return said


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_kind_of_server_gets_what_it_takes(shape: Shape) -> None:
    fields = {kind: dict(held(shape, kind)) for kind in (LLAMA_CPP, VLLM, OLLAMA, PLAIN)}
    assert fields[LLAMA_CPP] == {"grammar": grammar(shape)}
    assert json.loads(orjson.dumps(fields[VLLM])) == {
        "structured_outputs": {"grammar": grammar(shape, escapes=False)}
    }
    assert fields[OLLAMA] == fields[PLAIN] == {}
    assert layout_of(shape)["x-guidance"] == {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
    }


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "together",
            {"because": "so", "ratings": {"A": 10, "B": 0}},
            [{"A": 11, "B": 0}, {"A": 1.5, "B": 0}, {"A": 1}, {"A": 1, "B": 1, "C": 1}],
        ),
        ("in tenths", {"because": "so", "ratings": {"A": 0.1, "B": 1}}, [{"A": 0.15, "B": 1}]),
    ],
)
def test_a_layout_takes_ratings_on_the_scale_alone(
    name: str, good: dict[str, Any], bad: list[Any]
) -> None:
    shape = SHAPES[name]
    jsonschema.validate(good, layout_of(shape))
    assert parse(shape, json.dumps(good))
    for ratings in bad:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, "ratings": ratings}, layout_of(shape))


STEPS: dict[str, tuple[Scale, list[float], list[float]]] = {
    "tens": (Scale(low=0, high=100, step=10), [0, 30, 30.0, 100], [37, 1, 30.5]),
    "odd numbers": (Scale(low=1, high=7, step=2), [1, 3, 7.0], [2, 6]),
    "quarters": (Scale(low=0, high=1, step=0.25), [0, 0.25, 0.5, 1], [0.37, 0.2501]),
    "tenths": (Scale(low=0, high=1, step=0.1), [0.3, 0.1 + 0.2, 0.7], [0.35, 0.3001]),
    "from below": (Scale(low=-0.3, high=0.3, step=0.1), [-0.3, 0, 0.2], [0.05]),
    "thirds": (Scale(low=0, high=1, step=1 / 3), [0.3333333333, 2 / 3], [0.33]),
    "thousands": (Scale(low=0, high=1, step=0.001), [0.123], [0.1234]),
    "all whole ones": (Scale(), [3, 3.0], [3.5]),
}


@pytest.mark.parametrize(("scale", "good", "bad"), STEPS.values(), ids=STEPS)
def test_a_rating_is_one_of_the_numbers_of_the_scale(
    scale: Scale, good: list[float], bad: list[float]
) -> None:
    shape = Shape((("rating", "number"),), (), scale)
    listed = [json.loads(n) for n in written(scale)]
    assert (0 in listed) == (scale.low <= 0)
    for number in (*good, *listed):
        assert parse(shape, json.dumps({"rating": number})) == {"rating": number}
    for number in bad:
        with pytest.raises(Invalid, match=r"in steps of|not a whole number"):
            parse(shape, json.dumps({"rating": number}))


@pytest.mark.parametrize(("scale", "good", "bad"), STEPS.values(), ids=STEPS)
def test_the_schema_names_them_where_they_are_not_too_many(
    scale: Scale, good: list[float], bad: list[float]
) -> None:
    shape = Shape((("rating", "number"),), (), scale)
    asked = schema(shape)["properties"]["rating"]
    listed = [json.loads(n) for n in written(scale)]
    if scale == Scale():
        assert asked == {"type": "integer", "minimum": 0, "maximum": 10}
    elif len(listed) > MOST_LISTED:
        assert asked == {"type": "number", "minimum": 0, "maximum": 1}
    else:
        assert asked == {"enum": listed}
    assert (f" in steps of {scale.step:g}" in layout(shape)) == (scale != Scale())


def test_reasons_stand_before_what_they_are_for() -> None:
    assert list(layout_of(SHAPES["pick"])["properties"]) == ["because", "choice"]
    assert layout_of(SHAPES["pick"])["required"] == ["because", "choice"]


def test_an_exemplar_is_written_as_the_layout_has_it() -> None:
    """Else a model that follows its exemplars would be forced off them."""
    shape = SHAPES["together"]
    text = answer(shape, {"because": 'He said "no".', "ratings": {"A": 3, "B": 10}})
    assert json.loads(text)["because"] == 'He said "no".'
    laid_out = layout_of(shape)["x-guidance"]
    separators = laid_out["item_separator"], laid_out["key_separator"]
    assert text == json.dumps(json.loads(text), separators=separators)


@given(st.text(max_size=LONGEST_TEXT + 2))
def test_text_of_a_layout_is_whatever_one_line_holds(text: str) -> None:
    fits = len(text) <= LONGEST_TEXT and all(c >= " " and c != "\x7f" for c in text)
    assert bool(re.fullmatch(PATTERN[1:-1], text)) == fits


def test_what_a_schema_cannot_say_as_we_write_it_goes_by_a_grammar() -> None:
    huge = Shape((("rating", "number"),), (), Scale(low=0, high=1e12, step=1e11))
    assert held(huge, GUIDANCE) == held(huge, VLLM) != ()
    assert held_to(("0", "1e+11"), GUIDANCE) == held_to(("0", "1e+11"), VLLM) != ()
    assert held(Shape((("said", "json"),)), GUIDANCE) == ()


@pytest.mark.parametrize(
    ("owner", "by_guidance", "times", "sent"),
    [("vllm", True, 1, {"json"}), ("vllm", False, 1, {"grammar"}), ("somebody", True, 0, set())],
)
def test_a_vllm_and_nobody_else_is_asked_once_which_backend_it_has(
    owner: str, by_guidance: bool, times: int, sent: set[str]
) -> None:
    with Recorder(lambda _: Reply(SAID)) as server:
        server.owner, server.by_guidance = owner, by_guidance
        model = backend(server)
        for seed in range(3):
            assert model.engine.ask(TALK, SHAPE, Trail(seed=seed)).text == SAID
        model.close()
    assert server.backends == times
    assert len(server.asked) == 3
    for asked in server.asked:
        assert set(asked.json.get("structured_outputs", ())) == sent


class Cold(Recorder):
    """A vLLM with guidance whose first answers held to a form are not to be had at once."""

    def __init__(self, *first: Reply) -> None:
        super().__init__(lambda _: Reply(SAID))
        self.owner, self.by_guidance = "vllm", True
        self.first = list(first)

    def take(self, asked: Asked) -> Reply:
        before, reply = self.backends, super().take(asked)
        if self.backends > before and self.first:
            late = self.first.pop(0)
            return replace(reply, delay=late.delay, mute=late.mute)
        return reply


def backends_and_fields(server: Recorder, times: int) -> tuple[int, list[str]]:
    """How often it was asked for its backend; and what then held the answers to so many."""
    model = backend(server)
    for seed in range(times):
        assert model.engine.ask(TALK, SHAPE, Trail(seed=seed)).text == SAID
    model.close()
    return server.backends, [k for a in server.asked for k in a.json["structured_outputs"]]


def test_a_cold_vllm_may_take_as_long_as_any_answer_to_show_its_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("align_dsl.engine.session.LOOK_SECONDS", 1.0)
    with Cold(Reply(delay=1.5)) as server:
        assert backends_and_fields(server, 2) == (1, ["json", "json"])


@pytest.mark.parametrize(
    ("silent", "asked", "held_by"),
    [
        (1, 2, ["grammar", "json", "json", "json", "json"]),
        (9, MOST_LOOKS, ["grammar"] * 5),
    ],
)
def test_a_vllm_that_did_not_show_its_backend_is_asked_again(
    silent: int, asked: int, held_by: list[str]
) -> None:
    with Cold(*[Reply(mute=True)] * silent) as server:
        assert backends_and_fields(server, 5) == (asked, held_by)


@pytest.mark.parametrize("listed", [{"data": 5}, {"data": {"id": "x"}}, [1], "x", None, {}])
def test_rubbish_for_a_list_of_models_says_nothing(listed: Any) -> None:
    assert dialect(listed) is PLAIN

    class Rubbish(Recorder):
        def _looked_at(self) -> Reply:
            return Reply(body=json.dumps(listed).encode())

    with Rubbish() as server:
        model = backend(server)
        model.probe()
        model.close()


@pytest.mark.parametrize(
    ("by_guidance", "level", "advised"), [(True, "ok", False), (False, "warning", True)]
)
def test_doctor_says_which_backend_a_vllm_has(by_guidance: bool, level: str, advised: bool) -> None:
    sick = Sick(owner="vllm", by_guidance=by_guidance)
    with served(sick.handle) as url:
        report = look("hosted_vllm/good", f"{url}/v1")
    (found,) = [f for f in report.findings if f.probe == "backend"]
    assert (found.level, "guidance" in found.advice) == (level, advised)
    held_by = {frozenset(asked) for asked in sick.constraints}
    assert held_by == {frozenset({"json"} if by_guidance else {"grammar"})}


def test_doctor_asks_nobody_else_for_a_backend() -> None:
    with served(Sick().handle) as url:
        report = look("openai/good", f"{url}/v1")
    assert not [f for f in report.findings if f.probe == "backend"]
