"""The JSON Schema that editors get and the loader accept and reject the same files.

Shown on valid files, changed at random in shape: keys dropped and added, types swapped, numbers
pushed out of range, texts and lists emptied.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from align_dsl.errors import CompileError
from align_dsl.language.library import shipped_folder
from align_dsl.language.schema import KINDS, json_schema, read
from align_dsl.language.source import parse, read_source

ROOT = shipped_folder()
FULL_PROGRAM = """
version: 1
program: full
about: Everything a program may have.
attributes:
  thrift:
    about: Little is wasted.
    high: Saves.
    low: Spends.
    title: thrift
    kind: quality
    aliases: [saving]
    includes: [mending]
    excludes: [greed]
    scale: {low: 0, high: 4, step: 0.5}
    anchors: {0: Spends all., 4: Saves all.}
data:
  {format: jsonl, path: a.jsonl, cases: test, exemplars: {format: jsonl, path: b.jsonl},
   split: {train: 0.5, test: 0.5, group: scenario, seed: 1}}
targets:
  - {each: [low, 0.5], of: [thrift]}
  - {name: t, values: {thrift: high}, weights: {thrift: 2}}
  - {file: targets/a.json}
deciders:
  used: {use: baseline, with: {samples: 3, order: both}, model: small, about: Used.}
  own:
    extends: random
    params: {n: 1, k: {default: 1, about: How many., low: 0, high: 5, choices: [1, 2]}}
    steps:
      - {name: rate, use: rate_together, each: [attribute], only: [thrift], samples: $n, order: all,
         takes: {demos: recall}, with: {instructions: Rate.}, temperature: 0.5,
         scale: {low: 1, high: 5, step: 0.5}, definitions: {thrift: Frugality.}}
      - {name: again, use: rate_together, temperature: $n, scale: own, definitions: $k}
    decide: {use: closest, take: rate, takes: {ratings: rate}, with: {norm: l1}}
model: [small, embedded]
models:
  small:
    {use: ollama_chat/llama3.2:3b, endpoint: "http://localhost:1", key: A_KEY, temperature: 0.5,
     max_tokens: 100, context: 4096, timeout: 10, retries: 0, concurrency: 1, keep_alive: 5m}
metrics: [accuracy]
optimize:
  decider: used
  space: {samples: [1, 3], rate.scale: [own, {low: 1, high: 5}], rate.definitions.thrift: [Care.],
    decide.weights.thrift: {low: 0.5, high: 2, step: 0.5, log: false}}
  variants: {rate: [Rate it.], rate.thrift: [Frugality.]}
  trials: 3
  cases: train
  accept: test
  seed: 1
seed: 1
"""


def _valid() -> list[tuple[str, Any]]:
    files = [
        *(("program", p) for p in sorted((ROOT / "programs").glob("*.yaml"))),
        *(("attributes", p) for p in sorted((ROOT / "attributes").glob("*.yaml"))),
        *(("decider", p) for p in sorted((ROOT / "align_dsl" / "deciders").glob("*.yaml"))),
    ]
    # the 22 alike groups of a set prove nothing that two of them do not
    return [("program", parse(FULL_PROGRAM).data)] + [
        (kind, _shortened(read_source(path).data)) for kind, path in files
    ]


def _shortened(data: Any) -> Any:
    if isinstance(data.get("attributes"), dict):
        data["attributes"] = dict(list(data["attributes"].items())[:2])
    return data


VALID = _valid()
# whole numbers beyond 2**53 are left out: the loader refuses them before it comes to shapes
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 0.5, 1.5, 63, 64, 65, 1e6, 1e17, -1e300, 10**15, "", "x", "low",
    "high", "all", "test", "A b", "$n", "$", "a" * 70, "1", "a.b/c", [], [1], ["low"], [[]], [""],
    {}, {"a": 1}, {"default": 1}, {"A-b": 1}, {"": 1},
]  # fmt: skip
KEYS = ["use", "with", "text", "<text>", "list", "model", "x", "extends", "choices", "_target_", ""]


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutate(data: Any, dice: random.Random) -> None:
    """One change of shape somewhere in the data."""
    places = list(_places(data))
    holder, key = dice.choice(places)
    match dice.choice(["drop", "swap", "swap", "swap", "add", "rename", "append"]):
        case "drop":
            del holder[key]
        case "swap":
            holder[key] = copy.deepcopy(dice.choice(ODD))
        case "add" if isinstance(holder, dict):
            holder[dice.choice(KEYS)] = copy.deepcopy(dice.choice(ODD))
        case "rename" if isinstance(holder, dict):
            holder[dice.choice([f"{key}s", f"{key}".upper(), "0.5", "-1"])] = holder.pop(key)
        case "append" if isinstance(holder, list):
            holder.append(copy.deepcopy(dice.choice([*ODD, holder[0]])))


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    # `$` ends a text in ECMA-262, which JSON Schema means; in Python it may stand before a "\n"
    if isinstance(instance, str) and not re.search(re.sub(r"(?<!\\)\$", r"\\Z", pattern), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


Strict = jsonschema.validators.extend(Draft202012Validator, {"pattern": _pattern})
CHECKERS = {kind: Strict(json_schema(kind)) for kind in KINDS}


def accepted(kind: str, data: Any) -> bool:
    """By the loader, with the data written as JSON: that is YAML too."""
    try:
        read(KINDS[kind], parse(json.dumps(data, ensure_ascii=False)))
    except CompileError as error:
        return not error.diagnostics
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_schema(kind: str) -> None:
    Draft202012Validator.check_schema(json_schema(kind))


@pytest.mark.parametrize(("kind", "data"), VALID)
def test_valid_files_are_valid(kind: str, data: Any) -> None:
    assert accepted(kind, data)
    assert CHECKERS[kind].is_valid(data)


@given(st.integers(0, 2**32), st.integers(0, len(VALID) - 1), st.integers(1, 3))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_schema_and_loader_agree(seed: int, which: int, times: int) -> None:
    kind, data = VALID[which][0], copy.deepcopy(VALID[which][1])
    dice = random.Random(seed)
    for _ in range(times):
        if data:
            mutate(data, dice)
    if kind != "attributes" and "extends" in data:
        return  # what a file leaves to the one it extends is not for `read` to say: see below
    said = [e.message[:200] for e in CHECKERS[kind].iter_errors(data)]
    assert accepted(kind, data) == (not said), (said, data)


@pytest.mark.parametrize(
    ("kind", "data", "valid"),
    [
        ("program", {"version": 1, "program": "p", "extends": "mta", "seed": 3}, True),
        ("program", {"version": 1, "program": "p", "extends": "mta", "sed": 3}, False),
        ("program", {"version": 1, "program": "p", "seed": 3}, False),
        ("program", {"program": "p", "extends": "mta"}, False),
        ("decider", {"version": 1, "decider": "d", "extends": "random", "about": "A."}, True),
        ("decider", {"version": 1, "decider": "d", "about": "A."}, False),
    ],
)
def test_a_file_that_extends_may_leave_things_out(kind: str, data: Any, valid: bool) -> None:
    assert CHECKERS[kind].is_valid(data) == valid


def test_extending_file_is_checked_alike(tmp_path: Path) -> None:
    from align_dsl.pipeline import check

    file = tmp_path / "p.yaml"
    for text, wrong in [
        ("version: 1\nprogram: p\nextends: mta\nseed: 3\n", 0),
        ("program: p\nextends: mta\n", 1),
        ("version: 1\nprogram: p\nextends: mta\nsed: 3\n", 1),
    ]:
        file.write_text(text)
        assert len(check([file]).diagnostics) == wrong, text
