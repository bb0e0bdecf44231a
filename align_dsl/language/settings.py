"""What `with:` says -> the settings of an algorithm or aligner, each of its type and in range."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from align_dsl.errors import inside, nearest
from align_dsl.language.complaint import described
from align_dsl.language.signature import Param, Signature
from align_dsl.language.source import Path
from align_dsl.language.wording import FIELDS, fields_in
from align_dsl.language.work import Given, Work


def settings(
    work: Work, signature: Signature, written: Mapping[str, Any], at: Path, label: str
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in written.items():
        param = signature.param(name)
        if param is None:
            known = [p.name for p in signature.params]
            said = f"`{signature.name}` has no setting `{name}`"
            work.found.error(work.source.key((*at, "with", name)), said, nearest(name, known))
            continue
        place = (*at, "with", name)
        given = work.follow(value, work.source.at(place))
        if given is not None:
            values[name] = given.value
            if fits(work, param, given) and param.type == "weights":
                values[name] = _weights(work, given, place)
            work.note(f"{label}.{name}", given.span)
    for param in signature.params:
        if param.required and param.name not in written:
            said = f"`{signature.name}` needs the setting `{param.name}`"
            hint = f"add `with: {{{param.name}: ...}}`"
            work.found.error(work.source.at((*at, "use")), said, hint)
        elif param.name not in values and param.default is not None:
            values[param.name] = param.default
    return values


def _weights(work: Work, given: Given, at: Path) -> dict[str, Any]:
    """How much each attribute counts: names that there are, and numbers above 0."""
    weights = {}
    for name, one in work.follow_each(given, at).items():
        work.is_attribute(name, work.key_of(given, at, name))
        number = Param(name=one.name or name, type="float")
        if fits(work, number, one) and one.value <= 0:
            said = f"`{number.name}` must be more than 0, not {one.value:g}"
            hint = "an attribute that is not to count is one that no target names"
            work.found.error(one.span, said, hint)
        weights[name] = one.value
    return weights


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "prompt": ((str,), "text"),
    "bool": ((bool,), "true or false"),
    "names": ((list,), "a list"),
    "weights": ((dict,), "a mapping"),
}


def fits(work: Work, param: Param, given: Given, text_is_prompt: bool = True) -> bool:
    """Whether a value is what a setting takes; complaints call it as whoever wrote it does."""
    before = len(work.found.diagnostics)
    value: Any = given.value
    span, found, name = given.span, work.found, given.name or param.name
    kinds, wanted = _KINDS.get(param.type, ((object,), "a value"))
    is_kind = isinstance(value, kinds)
    if not is_kind or (isinstance(value, bool) and bool not in kinds):
        if param.type != "any":
            hint = f"for instance {_instance(name, param)}" if param.default is not None else ""
            if isinstance(value, str) and value.replace(".", "", 1).isdigit():
                hint = "write the number without quotes"
            elif not hint and param.low is not None and param.high is not None:
                hint = f"write a number from {param.low:g} to {param.high:g}"
            elif not hint and "number" in wanted:
                hint = "write a number, for instance 5"
            elif param.type == "weights":
                hint = f"name attributes, as in `{param.name}: {{{_one_of(work)}: 2}}`"
            found.error(span, f"`{name}` must be {wanted}, not {described(value)}", hint)
        return param.type == "any"
    if param.type == "names" and not all(isinstance(v, str) for v in value):
        found.error(span, f"`{name}` must be a list of texts", "for instance [one, another]")
    if param.choices is not None and value not in param.choices:
        options = ", ".join(str(c) for c in param.choices)
        hint = nearest(str(value), [str(c) for c in param.choices])
        said = f"`{name}` must be one of {options}, not {described(value)}"
        found.error(span, said, hint if hint.startswith("did") else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = param.low, param.high
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = (
                f"from {low:g} to {high:g}"
                if low is not None and high is not None
                else (f"at least {low:g}" if low is not None else f"at most {high:g}")
            )
            found.error(span, f"`{name}` must be {bounds}, not {value:g}")
    if param.type == "prompt" and text_is_prompt:
        for written in fields_in(value):
            if written not in FIELDS:
                said = f"a prompt has no field `{{{written}}}`"
                found.error(
                    inside(span, found.texts, f"{{{written}}}"), said, nearest(written, FIELDS)
                )
    return len(found.diagnostics) == before


def _one_of(work: Work) -> str:
    return next(iter(work.attributes), "ATTRIBUTE")


def _instance(name: str, param: Param) -> str:
    return f"`{name}: {json.dumps(param.default)}`"
