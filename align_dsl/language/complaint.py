"""What pydantic complains of -> a diagnostic in the file, in words, with a way out."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from align_dsl.errors import Diagnostic, nearest
from align_dsl.language.keys import keys_at
from align_dsl.language.source import Path, Source


def diagnose(kind: type[BaseModel], source: Source, below: Path, error: ErrorDetails) -> Diagnostic:
    loc, kept = error["loc"], [p for p in error["loc"] if p not in _TAGS]
    if error["type"] == "extra_forbidden" and loc[-1] in _TAGS:
        kept.append(loc[-1])  # an unknown key may be written like a tag
    path: Path = (*below, *kept)
    name = next((str(p) for p in reversed(path) if isinstance(p, str) and p != "[key]"), "file")
    where, context, value = error["type"], error.get("ctx", {}), error["input"]
    if where == "missing":
        hint = _examples.get(".".join(map(str, path[-2:])), _examples.get(name, ""))
        if name == "attributes" and "set" in kind.model_fields:
            hint = _OF_A_SET
        if path[:2] == ("optimize", "space"):
            hint = "for instance {low: 0, high: 10}, or a list of values"
        return Diagnostic(source.key(path[:-1]), f"`{name}` is missing", hint)
    if where == "extra_forbidden":
        above = [part for part in loc[:-1] if part not in _TAGS]
        known = sorted(keys_at(kind, above))
        hint = nearest(name, known)
        if (own := _CALLED.get(name.lower())) in known:
            hint = f"did you mean `{own}`?"
        if "targets" in path[:-1] and not hint.startswith("did"):
            hint = f"to say where someone stands: `values: {{{name}: high}}`"
        return Diagnostic(source.key(path), f"unknown key `{name}`", hint)
    if path and path[-1] == "[key]":
        said = f"{described(path[-2])} cannot be a name here"
        if not path[-2]:
            said = "a name is empty"
        return Diagnostic(source.key(path[:-1]), said, _pattern_hint(context, path[-2], ""))
    said = f"`{name}`"
    if path and isinstance(path[-1], int):
        said = f"item {path[-1] + 1} of `{name}`"
    span, got = source.at(path), described(value)
    if expected := _expected(error):
        hint = _fix(error, name)
        if path[:1] in (("deciders",), ("models",)) and len(path) == 2 and isinstance(value, str):
            hint = f"write `{name}: {{use: {value}}}`"
        if name == "attributes" and "set" in kind.model_fields:
            hint = _OF_A_SET
        if path[:1] == ("attributes",) and len(path) == 2 and isinstance(value, str):
            hint = f"say more of it: `{name}: {{about: ..., high: ..., low: ...}}`"
        return Diagnostic(span, f"{said} must be {expected}, not {got}", hint)
    if where == "string_pattern_mismatch":
        return Diagnostic(span, f"{said} cannot be {got}", _pattern_hint(context, value, name))
    if where in ("too_short", "string_too_short"):
        hint = "write a few words" if where.startswith("string") else "write at least one entry"
        hint = _forms.get(name, _examples.get(name, hint))
        if name == "attributes" and "set" in kind.model_fields:
            hint = _OF_A_SET
        return Diagnostic(span, f"{said} is empty", hint)
    message = error["msg"].replace("Input should be ", "")
    return Diagnostic(span, f"{said} must be {message}, not {got}")


def _expected(error: ErrorDetails) -> str:
    """What should stand there, in words; empty where it is no matter of type or bounds."""
    where, context = error["type"], error.get("ctx", {})
    if where == "union_tag_invalid":
        tags = [t.strip(" '") for t in str(context["expected_tags"]).split(",")]
        return " or ".join(_TAGS[t] for t in tags)
    if where == "literal_error":
        return str(context["expected"]).replace("'", "`")
    if where in _BOUNDS:
        bound = next(iter(context.values()))
        return f"{_BOUNDS[where]} {bound:{',' if isinstance(bound, int) else ',g'}}"
    return _EXPECTED.get(where, "")


_BOUNDS = {
    "greater_than_equal": "at least",
    "less_than_equal": "at most",
    "greater_than": "more than",
    "less_than": "less than",
}
_TAGS = {"<text>": "text", "<list>": "a list", "<mapping>": "a mapping", "<number>": "a number"}
_CALLED = {  # what others call a key
    "min": "low", "minimum": "low", "max": "high", "maximum": "high", "description": "about",
    "url": "endpoint", "base_url": "endpoint", "api_base": "endpoint", "api_key": "key",
    "<<": "extends", "dataset": "data", "file": "path", "type": "use", "algorithm": "use",
    "settings": "with",
}  # fmt: skip
_NAMES = "names are lower-case letters, digits and _, and start with a letter"
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_examples = {
    "version": "add `version: 1`",
    "about": "add one sentence: `about: ...`",
    "program": "add `program: NAME`",
    "set": "add `set: NAME`",
    "attributes": "for instance `attributes: mta`",
    "data": "for instance `data: {format: jsonl, path: data/triage.jsonl}`",
    "targets": "for instance `targets: {each: [low, high]}`",
    "deciders": "for instance `deciders: {mine: {use: comparative_regression}}`",
    "decide": "for instance `decide: {use: closest, take: rate}`",
    "use": "name what it uses: `use: NAME`",
    "name": "add `name: NAME`",
    "format": "for instance `format: jsonl`",
    "path": "for instance `path: data/triage.jsonl`",
    "train": "for instance `split: {train: 0.5, test: 0.5}`",
    "test": "for instance `split: {train: 0.5, test: 0.5}`",
    "default": "what holds where nobody says otherwise: `default: VALUE`",
    "decider": "name the one to tune: `decider: NAME`",
    "scale.low": "for instance `scale: {low: 0, high: 10}`",
    "scale.high": "for instance `scale: {low: 0, high: 10}`",
    "high": "say what a choice at the high end shows",
    "low": "say what a choice at the low end shows",
}
_OF_A_SET = "for instance `attributes: {mercy: {about: ..., high: ..., low: ...}}`"
_forms = {
    name: _examples[name] for name in ("attributes", "data", "targets", "deciders", "decide")
} | {
    "version": "write `version: 1`",
    "split": _examples["train"],
    "scale": _examples["scale.low"],
    "definitions": "write `ATTRIBUTE: what it is, in other words`",
    "anchors": "for instance `anchors: {0: what a zero looks like, 10: what a ten looks like}`",
    "values": "for instance `values: {fairness: 1, risk_aversion: 0.5}`",
    "weights": "for instance `weights: {fairness: 2}`",
    "params": "for instance `params: {shots: 5}`",
    "with": "for instance `with: {shots: 5}`",
    "takes": "for instance `takes: {demos: recall}`",
    "demos": "for instance `demos: [{case: ID}]`",
    "steps": "for instance `steps: [{name: rate, use: rate_together, each: [attribute]}]`",
    "model": "for instance `model: embedded`",
    "space": "for instance `space: {shots: [1, 5, 20]}`",
    "models": "for instance `models: {small: {use: ollama_chat/llama3.2:3b}}`",
    "optimize": "for instance `optimize: {decider: NAME}`",
}


def described(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str() | int() if len(str(value)) > 40:
            return f"`{str(value)[:37]}...`"
        case _:
            return f"`{value}`"


def _fix(error: ErrorDetails, name: str) -> str:
    where, value = error["type"], error["input"]
    expected = _expected(error)
    match where, value:
        case _, None:
            return "give it a value, or delete the key"
        case "string_type", bool() | int() | float():
            return f'put it in quotes: "{described(value).strip("`")}"'
        case "string_type", _:
            return "write one text"
        case "list_type", str() | int() | float():
            return f"put it in brackets: [{described(value).strip('`')}]"
        case "list_type", dict():
            return f"begin each item with a dash: `- {next(iter(value), 'name')}: ...`"
        case "list_type", _:
            return "write a list: [ONE, ANOTHER]"
        case "int_type" | "float_type" | "int_from_float", str() if _is_number(value):
            return "write the number without quotes"
        case "bool_type", _:
            return "write true or false, without quotes"
        case "float_type" | "int_type" | "int_from_float", _ if not isinstance(value, float):
            return f"for instance `{name}: {_NUMBERS.get(name, '1')}`"
        case "int_type" | "int_from_float", float() if abs(value) < 1e9:
            return f"for instance `{name}: {round(value)}`"
        case "literal_error", str() if expected == value:
            return "write it without quotes"
        case "literal_error", _ if name == "version":
            return "this is the only version there is so far"
        case "literal_error", str() if expected == "`low` or `high`":
            hint = nearest(value, ("low", "high"))
            return hint if hint.startswith("did") else "write low, high or a number from 0 to 1"
        case "literal_error", _:
            hint = nearest(str(value), [o.strip(" `") for o in re.split(",|or ", expected)])
            return hint if hint.startswith("did") else ""
        case "less_than", float() | int() if name in ("train", "test") and value <= 100:
            return f"shares are written on 0..1: {value:g} % is {value / 100:g}"
        case _, str() if name in ("data", "exemplars") and value:
            return f"write `{name}: {{format: jsonl, path: {value}}}`"
        case _, str() if name == "propose" and value:
            return f"write `propose: {{model: {value}}}`"
        case "union_tag_invalid", dict() if name == "model":
            return "name it under `models:`, and write that name here"
    if name == "scale" and (ends := _ends(value)):
        return f"did you mean `scale: {{low: {ends[0]}, high: {ends[1]}}}`?"
    if expected == "a list or a mapping" and name not in _forms:
        return "for instance [1, 5, 20], or {low: 1, high: 20}"
    return _forms.get(name, "write `key: value`" if "mapping" in expected else "")


_NUMBERS = {"high": "10", "low": "0", "train": "0.5", "test": "0.5", "temperature": "0.7"}


def _ends(value: Any) -> tuple[str, str] | None:
    """The two ends of a scale that was written some other way.

    >>> _ends("0-10"), _ends([1, 5]), _ends(7), _ends("wide")
    (('0', '10'), ('1', '5'), ('0', '7'), None)
    """
    match value:
        case str() if found := _RANGE.fullmatch(value):
            return found[1], found[3]
        case [int() | float() as low, int() | float() as high]:
            return f"{low:g}", f"{high:g}"
        case int() | float() if not isinstance(value, bool) and value > 0:
            return "0", f"{value:g}"
    return None


_RANGE = re.compile(r"\s*(-?[0-9]+(\.[0-9]+)?)\s*(?:-|–|\.\.+|to|:|,|/)\s*(-?[0-9]+(\.[0-9]+)?)\s*")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?[0-9]+(\.[0-9]+)?\s*", text) is not None


def _pattern_hint(context: dict[str, Any], value: Any, name: str) -> str:
    pattern = str(context.get("pattern", ""))
    if "shuffle" in pattern:
        hint = nearest(str(value), ("given", "shuffle", "both", "all"))
        options = "given, shuffle, both, all, or a parameter such as $order"
        return hint if hint.startswith("did") else f"write {options}"
    if pattern.startswith("^\\$"):
        wanted = "a mapping" if name == "definitions" else "a number"
        return f"write {wanted}, or a parameter such as ${name}"
    if pattern.startswith("^(own"):
        return "write own, {low: 1, high: 5}, or a parameter such as $scale"
    if "[A-Z]" in pattern and "_]*" in pattern:
        return "name an environment variable, such as OPENAI_API_KEY; never the key itself"
    if pattern.startswith("^-?"):
        return "anchors are numbers on the scale: `0: what a zero looks like`"
    if pattern.endswith("{0,2}$"):
        return "a setting is PARAMETER, STEP.SETTING or STEP.SETTING.ATTRIBUTE"
    if pattern.endswith(")?$") and "{0,63}(" in pattern:
        return "write STEP for its instructions, or STEP.ATTRIBUTE for a definition"
    if "A-Za-z" in pattern:
        allowed = pattern[pattern.index("9") + 1 : pattern.index("]")]
        return f"letters, digits and {' '.join(sorted(allowed))} only"
    better = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
    fits = re.fullmatch("[a-z][a-z0-9_]{0,63}", better)
    return f"write `{better}`: {_NAMES}" if fits else _NAMES
