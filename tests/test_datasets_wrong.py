"""Whatever stands in a file of data: cases come out, or a CompileError that says what to mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from align_dsl import datasets
from align_dsl.datasets._mistakes import LISTED
from align_dsl.errors import CompileError
from align_dsl.types import Attribute, Case, Scale

FAIRNESS = Attribute(
    name="fairness", title="Fairness", about="a", high="b", low="c", scale=Scale(low=0, high=10)
)
FORMATS = ("jsonl", "align_system", "helpsteer2")
KEYS = (
    "id", "scenario", "choices", "group", "text", "labels", "reasons", "fairness", "Fairness",
    "input", "scenario_id", "full_state", "unstructured", "meta_info", "label", "state",
    "kdma_association", "prompt", "responses", "reasonings",
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=5)
    ),
    max_leaves=12,
)
SOUND = {
    "id": "ferry",
    "scenario": "One seat.",
    "choices": [{"id": "a", "text": "Mine.", "labels": {"fairness": 7}}],
}
RECORD = {
    "input": {
        "scenario_id": "s",
        "full_state": {"unstructured": "x"},
        "choices": [{"unstructured": "Mine."}],
    },
    "label": [{"fairness": 7}],
}
PROMPT = {"prompt": "x", "responses": ["a"], "labels": [{"fairness": 0.5}]}


def read(format: str, text: bytes, folder: Path) -> tuple[Case, ...] | CompileError:
    path = folder / "data"
    path.write_bytes(text)
    try:
        return datasets.load(format, path, {"fairness": FAIRNESS})
    except CompileError as error:
        found = error
    assert all(d.message and (d.hint or not found.texts) for d in found.diagnostics)
    return found


def replaced(value: Any, at: list[int], new: Any) -> Any:
    """The same with something else at one place in it."""
    if not at or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, list):
        i = at[0] % len(value)
        return [*value[:i], replaced(value[i], at[1:], new), *value[i + 1 :]]
    key = sorted(value)[at[0] % len(value)]
    return {**value, key: replaced(value[key], at[1:], new)}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.lists(st.integers(0, 5), max_size=6), new=VALUES)
def test_something_else_at_any_place(at: list[int], new: Any, tmp_path: Path) -> None:
    for format, sound in zip(FORMATS, (SOUND, [RECORD], [PROMPT]), strict=True):
        line = json.dumps(replaced(sound, at, new)).encode()
        read(format, line, tmp_path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=40), at=st.integers(0, 80))
def test_any_bytes_anywhere(raw: bytes, at: int, tmp_path: Path) -> None:
    for format, sound in zip(FORMATS, (SOUND, [RECORD], [PROMPT]), strict=True):
        line = json.dumps(sound).encode()
        read(format, line[:at] + raw + line[at:], tmp_path)


@pytest.mark.parametrize("wrong", [0, 1, LISTED - 1, LISTED, LISTED + 1, 5 * LISTED])
@pytest.mark.parametrize("format", FORMATS)
def test_every_mistake_is_counted(format: str, wrong: int, tmp_path: Path) -> None:
    sound, bad = {
        "jsonl": (SOUND, {**SOUND, "choices": [{"id": "a", "text": 7}]}),
        "align_system": (RECORD, {**RECORD, "label": [{"fairness": "high"}]}),
        "helpsteer2": (PROMPT, {**PROMPT, "labels": [{"fairness": "high"}]}),
    }[format]
    rows: list[Any] = [sound, *[bad] * wrong]
    text = "\n".join(map(json.dumps, rows)) if format == "jsonl" else json.dumps(rows)
    found = read(format, text.encode(), tmp_path)
    if not wrong:
        assert len(found) == 1  # type: ignore[arg-type]
        return
    assert isinstance(found, CompileError)
    assert len(found.diagnostics) == min(wrong, LISTED + 1)
    assert sum(d.count for d in found.diagnostics) == wrong


def test_a_line_that_is_sound_is_read_as_before(tmp_path: Path) -> None:
    found = read("jsonl", json.dumps(SOUND).encode(), tmp_path)
    assert not isinstance(found, CompileError)
    assert found[0].labels == {"a": {"fairness": 0.7}}
    assert found[0].group == "ferry"
