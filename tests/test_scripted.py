"""Answers from a file: found by what they match, read as strictly as those of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align_dsl.algorithms.pick import pick
from align_dsl.algorithms.rate_alone import rate_alone
from align_dsl.algorithms.rate_together import rate_together
from align_dsl.backends.scripted import scripted
from align_dsl.engine.ask import ask
from align_dsl.engine.plan import Job
from align_dsl.errors import BackendError
from align_dsl.language.program import Model, Step
from align_dsl.language.signature import signature
from align_dsl.records.record import Answer
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Choice
from tests.test_prompt import CARE, FAIRNESS, SCENARIO

FIRST, SECOND = (c.text for c in SCENARIO.choices)


def answer(folder: Path, lines: list[Any], module: Any = rate_together, **inputs: Any) -> Answer:
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    backend = scripted(Model(name="m", backend="scripted", address=str(file)))
    step = Step(name="s", algorithm=signature(ALGORITHMS, module.__name__), takes={})
    given = {"scenario": SCENARIO, **inputs}
    if module is not pick:
        given.setdefault("attribute", FAIRNESS)
    return ask(Job("00", step, backend.model, given, 0), given, backend)


def values(got: Answer) -> list[float]:
    assert got.failure is None
    return [rating["value"] for rating in got.output]


RATED = {"ratings": {FIRST: 9, SECOND: 2}}


def test_ratings_are_found_by_the_texts_of_choices(tmp_path: Path) -> None:
    got = answer(tmp_path, [{**RATED, "because": "Need."}])
    assert values(got) == [0.9, 0.2]
    assert got.output[0]["why"] == "Need."
    assert (got.calls, got.constrained) == (1, "scripted")
    for choice, value in zip(SCENARIO.choices, (0.9, 0.2), strict=True):
        assert values(answer(tmp_path, [RATED], rate_alone, choice=choice)) == [value]


def test_a_pick_is_found_by_the_text_of_a_choice(tmp_path: Path) -> None:
    got = answer(tmp_path, [{"choice": SECOND}], pick)
    assert got.failure is None
    assert got.output[0]["choice"] == "B"


def test_choices_may_be_called_what_our_fields_are_called(tmp_path: Path) -> None:
    texts = ("because", "ratings", "choice", "A")
    choices = tuple(Choice(id="ABCD"[i], text=t) for i, t in enumerate(texts))
    scenario = SCENARIO.model_copy(update={"choices": choices})
    line = {"ratings": {t: i for i, t in enumerate(texts)}, "choice": "A"}
    assert values(answer(tmp_path, [line], scenario=scenario)) == [0, 0.1, 0.2, 0.3]
    assert answer(tmp_path, [line], pick, scenario=scenario).output[0]["choice"] == "D"


def test_the_first_line_that_matches_is_given(tmp_path: Path) -> None:
    lines = [
        {"scenario": "Another.", "fail": "timeout"},
        {"attribute": "care", "ratings": {FIRST: 1, SECOND: 0}},
        {"attribute": "fairness", "ratings": {FIRST: 3, SECOND: 4}},
        RATED,
    ]
    assert values(answer(tmp_path, lines)) == [0.3, 0.4]
    assert values(answer(tmp_path, lines, attribute=CARE)) == [1.0, 0.0]
    assert values(answer(tmp_path, [{"scenario": SCENARIO.text, **RATED}, *lines])) == [0.9, 0.2]


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ({"scenario": "Another."}, "refused", "no scripted answer"),
        ({"fail": "timeout"}, "timeout", "timeout"),
        ({"fail": "unreachable", "message": "gone"}, "unreachable", "gone"),
        ({"raw": '{"because": "b", "rat', "finish": "length"}, "truncated", "cut off"),
        ({"raw": "hello"}, "invalid", "not one JSON object"),
        ({"raw": ""}, "invalid", "empty"),
        ({"ratings": {FIRST: 99, SECOND: 0}}, "invalid", "99.0, not from 0 to 10"),
        ({"ratings": {FIRST: 1}}, "invalid", "each of A, B"),
    ],
)
def test_failures_are_those_of_a_model(
    line: dict[str, Any], status: str, said: str, tmp_path: Path
) -> None:
    got = answer(tmp_path, [line])
    assert got.failure is not None
    assert got.failure.status == status
    assert said in got.failure.message
    assert got.failure.raw == line.get("raw", got.failure.raw)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", ":1:"), ('\n{"rating": 1}\n', ":2:"), ('{"fail": 1}\n', ":1:")],
)
def test_a_wrong_file_is_said_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BackendError, match=said):
        scripted(Model(name="m", backend="scripted", address=str(file)))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot be read"):
        scripted(Model(name="m", backend="scripted", address=str(tmp_path / "none.jsonl")))


def test_another_script_is_another_model(tmp_path: Path) -> None:
    prints = set()
    for text in ("", "{}\n", '{"choice": "x"}\n'):
        file = tmp_path / "answers.jsonl"
        file.write_text(text, encoding="utf-8")
        prints.add(scripted(Model(name="m", backend="scripted", address=str(file))).fingerprint())
    assert len(prints) == 3
