"""YAML text -> data and places: scalars by YAML 1.2, and a place for every key and value."""

from __future__ import annotations

from typing import Any

import pytest

from align_dsl.errors import CompileError, Span
from align_dsl.language.source import parse


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("NO", "NO"),
        ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("Null", None), ("none", "none"),
        ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"),
        ("1", 1), ("+1", 1), ("-1", -1), ("007", 7), ("0o17", 15), ("0x1F", 31), ("0b11", "0b11"),
        ("1_000", "1_000"), ("1,000", "1,000"), ("3.0", 3), ("3.5", 3.5), (".5", 0.5), ("5.", 5),
        ("1e3", 1000), ("1E-2", 0.01), ("-0.0", 0), ("1e", "1e"), ("1.2.3", "1.2.3"), (".", "."),
        ("9007199254740992", 2**53), ("1e300", 1e300), ("=", "="), ("<<", "<<"),
        ('"1"', "1"), ("'no'", "no"), ('""', ""), ('"\\u0041"', "A"), ("'it''s'", "it's"),
        ("a b  c", "a b  c"), ("a#b", "a#b"), ("a # b", "a"), ("公平", "公平"),
        ("[1, no, 'x']", [1, "no", "x"]), ("{a: 1, b: {c: []}}", {"a": 1, "b": {"c": []}}),
    ],
)  # fmt: skip
def test_scalars(written: str, means: Any) -> None:
    found = parse(f"value: {written}\n").data["value"]
    assert found == means
    assert type(found) is type(means)


@pytest.mark.parametrize("key", ["1", "true", "null", "~", "no", "1.5", "<<"])
def test_keys_are_text(key: str) -> None:
    assert parse(f"{key}: x").data == {key: "x"}


@pytest.mark.parametrize(
    "number", [".inf", "-.INF", ".nan", "1e999", "9007199254740993", "0x" + "f" * 20]
)
def test_numbers_that_are_refused(number: str) -> None:
    with pytest.raises(CompileError) as caught:
        parse(f"a: {number}")
    (wrong,) = caught.value.diagnostics
    assert wrong.span == Span("<text>", 1, 4, len(number))


TEXT = """\
# a comment
a: one
b:
  - x
  - {c: [1, 22], "d e": ~}
f: >-
  folded
  text
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("a",), (2, 1, 1), (2, 4, 3)),
        (("b",), (3, 1, 1), (4, 3, 1)),
        (("b", 0), None, (4, 5, 1)),
        (("b", 1), None, (5, 5, 22)),
        (("b", 1, "c"), (5, 6, 1), (5, 9, 7)),
        (("b", 1, "c", 1), None, (5, 13, 2)),
        (("b", 1, "d e"), (5, 18, 5), (5, 25, 1)),
        (("f",), (6, 1, 1), (6, 4, 1)),
    ],
)
def test_places(path: Any, key: Any, value: Any) -> None:
    source = parse(TEXT, "x.yaml")
    assert source.at(path) == Span("x.yaml", *value)
    assert source.key(path) == Span("x.yaml", *(key or value))


def test_unknown_path_is_at_its_nearest_holder() -> None:
    source = parse(TEXT, "x.yaml")
    assert source.at(("b", 1, "nowhere")) == source.at(("b", 1))


def test_all_mistakes_at_once() -> None:
    with pytest.raises(CompileError) as caught:
        parse("a: !x 1\nb: &y 2\nb: 3\nc: .inf\nd: *y\n")
    assert [d.span.line for d in caught.value.diagnostics] == [1, 2, 3, 4, 5]
