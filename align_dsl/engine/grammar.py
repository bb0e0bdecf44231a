"""The shape of an answer -> what holds llama.cpp and vLLM to it, in the layout of the prompt.

A JSON schema leaves the layout to the model, and llama.cpp holds it to no range of numbers that
are not whole. A grammar (GBNF) says both: spaces stand where the exemplars have them, a number is
one of the scale's, and text holds nothing that its writer could not have meant. So does a schema
for vLLM with guidance, which has a word for layout, and takes a grammar at three times the price.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from align_dsl.engine.mapping import Extra
from align_dsl.engine.prompt import LONGEST_TEXT, Kind, Shape, closed, written
from align_dsl.engine.quirks import Dialect

NUMBERED = frozenset({"number", "numbers", "weights"})
MOST_NUMBERS = 1001  # of a scale, before the grammar would be a book

TEXT = rf"""text ::= "\"" char{{0,{LONGEST_TEXT}}} "\""
char ::= [^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]
"""
PLAIN_TEXT = rf"""text ::= "\"" [^"\\\x00-\x1F\x7F]{{0,{LONGEST_TEXT}}} "\""
"""
PATTERN = rf"^[^\x00-\x1F\x7F]{{0,{LONGEST_TEXT}}}$"
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Rules:
    """What vLLM has under `structured_outputs`. Not a dict: requests alike are known by a hash."""

    grammar: str


@dataclass(frozen=True, slots=True)
class LaidOut:
    """The same, where it is a schema."""

    json: str


@lru_cache(maxsize=1024)
def held(shape: Shape, dialect: Dialect) -> Extra:
    """The fields of a request that hold its answer to a shape, on one kind of server.

    None of them where only `response_format` will do.
    """
    if dialect.held_by == "schema" or (rules := grammar(shape, dialect.escapes)) is None:
        return ()
    if dialect.held_by == "layout" and _is_plain(numbers := _listed(shape)):
        return _laid_out({"enum": _values(numbers)} if shape.weighs else _object(shape))
    return _by_rules(rules, dialect)


@lru_cache(maxsize=1024)
def held_to(numbers: tuple[str, ...], dialect: Dialect) -> Extra:
    """The fields of a request that hold its answer to one of some numbers."""
    if dialect.held_by == "schema":
        return ()
    if dialect.held_by == "layout" and _is_plain(numbers):
        return _laid_out({"enum": _values(numbers)})
    return _by_rules(one_of(numbers), dialect)


def _by_rules(rules: str, dialect: Dialect) -> Extra:
    if dialect.held_by == "grammar":
        return (("grammar", rules),)
    return (("structured_outputs", Rules(rules)),)


def _laid_out(schema: dict[str, Any]) -> Extra:
    said = orjson.dumps({**schema, "x-guidance": LAYOUT}).decode()
    return (("structured_outputs", LaidOut(said)),)


@lru_cache(maxsize=1024)
def grammar(shape: Shape, escapes: bool = True) -> str | None:
    """None where only a schema will do: a free form is asked for, or a scale of thousands.

    Without `escapes`, text holds no double quotes: to repeat a choice between two rules hundreds of
    times costs xgrammar, which most vLLM have, a tenth of a second for each token of an answer.
    """
    kinds = {kind for _, kind in shape.outputs}
    numbered = bool(kinds & NUMBERED)
    if "json" in kinds or (numbered and _numbers(shape) > MOST_NUMBERS):
        return None
    if shape.weighs:
        return one_of(written(shape.scale))
    fields = [f'"\\"{name}\\": " {_rule(kind, shape)}' for name, kind in shape.outputs]
    rules = 'root ::= "{" ' + ' ", " '.join(fields) + ' "}"\n'
    if "text" in kinds:
        rules += TEXT if escapes else PLAIN_TEXT
    if "label" in kinds:
        rules += "label ::= " + " | ".join(f'"\\"{label}\\""' for label in shape.labels) + "\n"
    if numbered:
        rules += "number ::= " + " | ".join(f'"{n}"' for n in written(shape.scale)) + "\n"
    return rules


def one_of(texts: tuple[str, ...]) -> str:
    """A grammar of nothing but these.

    >>> one_of(("0", "10"))
    'root ::= "0" | "10"\\n'
    """
    return "root ::= " + " | ".join(f'"{text}"' for text in texts) + "\n"


def _rule(kind: Kind, shape: Shape) -> str:
    if kind != "numbers":
        return kind
    rated = (f'"\\"{label}\\": " number' for label in shape.labels)
    return '"{" ' + ' ", " '.join(rated) + ' "}"'


def _object(shape: Shape) -> dict[str, Any]:
    return closed({name: _property(kind, shape) for name, kind in shape.outputs})


def _property(kind: Kind, shape: Shape) -> dict[str, Any]:
    number = {"enum": _values(_listed(shape))}
    match kind:
        case "text":
            return {"type": "string", "pattern": PATTERN}
        case "label":
            return {"enum": list(shape.labels)}
        case "numbers":
            return closed(dict.fromkeys(shape.labels, number))
        case _:
            return number


def _listed(shape: Shape) -> tuple[str, ...]:
    """The numbers that an answer may hold, if any."""
    numbered = any(kind in NUMBERED for _, kind in shape.outputs)
    return written(shape.scale) if numbered else ()


def _values(numbers: tuple[str, ...]) -> list[Any]:
    return [orjson.loads(number) for number in numbers]


def _is_plain(numbers: tuple[str, ...]) -> bool:
    """Whether a schema's reader writes these numbers as we do."""
    return not any("e" in number for number in numbers)


def _numbers(shape: Shape) -> float:
    scale = shape.scale
    return 0 if scale is None else (scale.high - scale.low) / scale.step
