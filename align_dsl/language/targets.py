"""`targets:` of a program, or a target file -> targets, each on 0..1 and on known attributes.

Reads our own target files, those of align-system (`kdma_values`) and flat JSON mappings. Nothing
in a foreign file is ever imported or unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from align_dsl.errors import CompileError, Diagnostic, Findings, Span, nearest
from align_dsl.language.attributes import by_any_name
from align_dsl.language.library import shown
from align_dsl.language.schema import TargetDeclaration
from align_dsl.language.source import Path, Source, parse, read_source, read_text
from align_dsl.types import Attribute, Target

ENDS = {"low": 0.0, "high": 1.0}


def resolve_targets(
    declared: TargetDeclaration | list[TargetDeclaration],
    source: Source,
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> tuple[Target, ...]:
    at: Path = ("targets",)
    items = (
        [(declared, at)]
        if isinstance(declared, TargetDeclaration)
        else [(one, (*at, i)) for i, one in enumerate(declared)]
    )
    targets: dict[str, Target] = {}
    for one, where in items:
        for target, span in _of_item(one, source, where, attributes, found):
            if target.name in targets and targets[target.name] != target:
                said = f"two targets are named `{target.name}`"
                found.error(span, said, "give one of them another `name:`")
            targets[target.name] = target
    return tuple(targets.values())


def _of_item(
    one: TargetDeclaration,
    source: Source,
    at: Path,
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> Iterable[tuple[Target, Span]]:
    given = [k for k in ("each", "values", "file") if getattr(one, k) is not None]
    if len(given) != 1:
        said = "a target is given by `each`, by `values` or by a `file`"
        hint = f"keep one of {', '.join(given)}" if given else "for instance `each: [low, high]`"
        whole = source.at(at)  # or what a command line has put into it
        ways = [source.keys.get((*at, k), whole) for k in ("each", "values", "file")]
        span = next((s for s in ways if s.file != whole.file), whole)
        found.error(span, said + (", not by several" if given else ""), hint)
        return
    for key, needs in (("of", "each"), ("weights", "values"), ("name", "values")):
        if getattr(one, key) and given != [needs]:
            found.error(
                source.key((*at, key)), f"`{key}` goes with `{needs}` only", f"delete `{key}`"
            )
    if one.each is not None:
        yield from _each(one, source, at, attributes, found)
    elif one.values is not None:
        span = source.at((*at, "values"))
        if not one.values:
            found.error(span, "this target stands nowhere", "give at least one attribute a value")
            return
        values = _values(one.values, source, (*at, "values"), attributes, found)
        weights = _weights(one.weights, values, source, (*at, "weights"), attributes, found)
        name = one.name or "+".join(f"{n}={v:g}" for n, v in values.items())[:80]
        if one.name:
            span = source.at((*at, "name"))
        yield Target(name=name, values=values, weights=weights), span
    elif one.file is not None:
        path = FilePath(source.at((*at, "file")).file).parent / one.file
        span = source.at((*at, "file"))
        try:
            for target in read_targets(path, attributes):
                yield target, span
        except CompileError as error:
            if error.texts:
                found.add(error)
            else:
                wrong = error.diagnostics[0]
                found.error(span, f"{one.file}: {wrong.message}", wrong.hint)


def _each(
    one: TargetDeclaration,
    source: Source,
    at: Path,
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> Iterable[tuple[Target, Span]]:
    names = list(attributes)
    if one.of is not None:
        if not one.of:
            hint = "name attributes, or delete `of` to mean all"
            found.error(source.at((*at, "of")), "`of` is empty", hint)
        names = [
            _name(n, source.at((*at, "of", i)), attributes, found) for i, n in enumerate(one.of)
        ]
    stands = []
    for i, stand in enumerate(one.each or []):
        span = source.at((*at, "each", i))
        value = _stand(stand, span, None, found)
        stands.append((value, stand if isinstance(stand, str) else f"{value:g}", span))
    for name in names:
        for value, end, span in stands:
            yield Target(name=f"{name}_{end}", values={name: value}), span
    if not one.each:
        found.error(source.at((*at, "each")), "`each` is empty", "for instance `each: [low, high]`")


def _name(name: str, span: Span, attributes: Mapping[str, Attribute], found: Findings) -> str:
    own = by_any_name(attributes).get(name)
    if own is None:
        found.error(span, f"no attribute named `{name}` in this program", nearest(name, attributes))
        return name
    return own


def _stand(value: str | float, span: Span, attribute: Attribute | None, found: Findings) -> float:
    if isinstance(value, str):
        return ENDS[value]
    if 0 <= value <= 1:
        return float(value)
    hint = "0 is the low end of every attribute, 1 the high end"
    if attribute and attribute.scale.low <= value <= attribute.scale.high:
        scale = attribute.scale
        written = f"{value:g} on the scale {scale.low:g}..{scale.high:g} of `{attribute.name}`"
        hint = f"targets are written on 0..1; {written} is {scale.unit(value):g}"
    found.error(span, f"the target {value:g} is off 0..1", hint)
    return min(1.0, max(0.0, value))


def _values(
    given: Mapping[str, Any],
    source: Source,
    at: Path,
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> dict[str, float]:
    """Attribute -> where the target stands; each attribute once, whatever it is called."""
    values: dict[str, float] = {}
    for name, value in given.items():
        span, key = source.at((*at, name)), source.key((*at, name))
        own = _name(name, key, attributes, found)
        if not (_is_number(value) or value in ("low", "high")):
            hint = "0 is the low end of every attribute, 1 the high end"
            found.error(span, f"`{name}` must be a number from 0 to 1, low or high", hint)
            continue
        if own in values:
            said = f"this target gives `{own}` twice"
            found.error(key, said, f"delete one: `{name}` is another name for it")
        values[own] = _stand(value, span, attributes.get(own), found)
    return values


def _weights(
    given: Mapping[str, Any],
    values: Mapping[str, float],
    source: Source,
    at: Path,
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> dict[str, float]:
    names = by_any_name(attributes)
    weights: dict[str, float] = {}
    for name, weight in given.items():
        own = names.get(name, name)
        if own not in values:
            said = f"a weight for `{name}`, which this target has no value for"
            found.error(source.key((*at, name)), said, "give it a value, or drop it")
        elif not _is_number(weight) or weight <= 0:
            found.error(source.at((*at, name)), f"the weight of `{name}` must be above 0")
        else:
            weights[own] = float(weight)
    return weights


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_targets(path: FilePath, attributes: Mapping[str, Attribute]) -> list[Target]:
    """Every target of a file, or of a folder of files. Raises CompileError."""
    if os.path.isdir(path):
        files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
        return [t for file in files for t in read_targets(file, attributes)]
    source = read_source(path, shown(path)) if path.suffix != ".json" else _json(path)
    found = Findings(texts=dict(source.texts))
    data = source.data
    target = Target(name=path.stem, values={})
    if not isinstance(data, dict):
        hint = "for instance {fairness: 1, risk_aversion: 0.5}"
        found.error(source.at(()), "a target is a mapping of attributes to numbers", hint)
    elif "kdma_values" in data:
        target = _align_system(source, attributes, found)
    elif isinstance(data.get("values"), dict):
        target = _own(source, path.stem, attributes, found)
    else:
        target = Target(name=path.stem, values=_values(data, source, (), attributes, found))
    found.stop_if_wrong()
    return [target]


def _json(path: FilePath) -> Source:
    """JSON is YAML enough to tell positions by; whether it is JSON is for `json` to say."""
    name = shown(path)
    text = read_text(path, name)
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        span = Span(name, error.lineno, error.colno)
        wrong = Diagnostic(span, f"not JSON: {error.msg.lower()}", "check brackets and commas")
        raise CompileError([wrong], {name: text}) from None
    except (ValueError, RecursionError) as error:
        wrong = Diagnostic(Span(name), f"not JSON: {error}", "check the file")
        raise CompileError([wrong], {name: text}) from None
    return parse(text, name)


def _own(source: Source, stem: str, attributes: Mapping[str, Attribute], found: Findings) -> Target:
    """Our own form: `values`, and beside it what a target in a program may have."""
    known = ("version", "about", "name", "values", "weights")
    for key in source.data:
        if key not in known:
            found.error(source.key((key,)), f"unknown key `{key}`", nearest(key, known))
    values = _values(source.data["values"], source, ("values",), attributes, found)
    weights = source.data.get("weights") or {}
    if not isinstance(weights, dict):
        found.error(source.at(("weights",)), "`weights` must be a mapping", "write {NAME: 2}")
        weights = {}
    weights = _weights(weights, values, source, ("weights",), attributes, found)
    return Target(name=str(source.data.get("name", stem)), values=values, weights=weights)


def _align_system(source: Source, attributes: Mapping[str, Attribute], found: Findings) -> Target:
    """Their MTA targets stand on 0..10, all others on 0..1; a number above 1 tells them apart."""
    rows = source.data["kdma_values"]
    values: dict[str, float] = {}
    if not isinstance(rows, list) or not rows:
        hint = "for instance `kdma_values: [{kdma: Fairness, value: 1.0}]`"
        found.error(source.at(("kdma_values",)), "`kdma_values` must be a list of values", hint)
        rows = []
    for i, row in enumerate(rows):
        at: Path = ("kdma_values", i)
        if not isinstance(row, dict) or "kdma" not in row:
            found.error(source.at(at), "expected `kdma:` and `value:`", "name the attribute")
            continue
        if row.get("kdes"):
            said = "this target is a pickled density; unpickling it could run any code"
            found.error(source.key((*at, "kdes")), said, "use a target with a plain `value:`")
            continue
        value = row.get("value")
        if value is None:
            said = f"`{row['kdma']}` has no plain value"
            hint = "targets made of model parameters are not supported; give it a `value:`"
            found.error(source.at((*at, "kdma")), said, hint)
            continue
        if not _is_number(value):
            said = f"the value of `{row['kdma']}` must be a number"
            found.error(source.at((*at, "value")), said, "write it without quotes")
            continue
        own = _name(str(row["kdma"]), source.at((*at, "kdma")), attributes, found)
        values[own] = _stand(
            value / 10 if value > 1 else value, source.at((*at, "value")), None, found
        )
    return Target(name=str(source.data.get("id", "target")), values=values)
