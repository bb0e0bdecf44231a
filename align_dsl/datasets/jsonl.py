"""Our own format: JSON lines, one case a line, labels on each attribute's own scale.

{"id": "...", "group": "...", "scenario": "...",
 "choices": [{"id": "a", "text": "...", "labels": {"fairness": 7}, "reasons": {"fairness": "..."}}]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from align_dsl.errors import CompileError, Diagnostic, Findings, Span, nearest
from align_dsl.language.attributes import by_any_name
from align_dsl.language.source import Source, parse
from align_dsl.types import Attribute, Case, Choice, Scenario


class ChoiceLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: str
    text: str
    labels: dict[str, float] = {}
    reasons: dict[str, str] = {}


class CaseLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: str
    scenario: str
    choices: list[ChoiceLine]
    group: str = ""


def jsonl(path: Path, attributes: Mapping[str, Attribute]) -> Iterator[Case]:
    """Read a file, or every .jsonl file of a folder."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    names = by_any_name(attributes)
    for file in files:
        found = Findings()
        cases = []
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    case = _case(line, Span(str(file), number), names, attributes, found)
                    if case:
                        cases.append(case)
                if len(found.diagnostics) >= 20:
                    break
        found.stop_if_wrong()
        yield from cases


def _case(
    line: str,
    span: Span,
    names: Mapping[str, str],
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> Case | None:
    try:
        said = CaseLine.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        _show(line, span, found)
        span = Span(span.file, span.line, error.colno)
        found.error(span, f"not JSON: {error.msg.lower()}", "one whole object a line")
        return None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or a bomb
        if not isinstance(error, ValidationError):
            _show(line, span, found)
            found.error(span, "not JSON that can be read", f"{str(error)[:80]}")
            return None
        places = _show(line, span, found)
        for one in error.errors(include_url=False):
            found.diagnostics.append(_say(one, places))
        return None
    labels: dict[str, dict[str, float]] = {}
    for i, choice in enumerate(said.choices):
        for written, raw in choice.labels.items():
            name = names.get(written) or names.get(written.lower())
            if name is None:  # labelled on more than this program asks for, or misspelt
                meant = names.get(_nearest(written, frozenset(names)))
                if meant and meant not in choice.labels:
                    place = _show(line, span, found).at(("choices", i, "labels", written))
                    said_ = f"no attribute is named `{written}`"
                    found.error(place, said_, f"did you mean `{meant}`?")
                continue
            scale = attributes[name].scale
            if not scale.low <= raw <= scale.high:
                said_ = f"the label {raw:g} of choice `{choice.id}` is off the scale of `{name}`"
                place = _show(line, span, found).at(("choices", i, "labels", written))
                found.error(place, said_, f"write a number from {scale.low:g} to {scale.high:g}")
                continue
            labels.setdefault(choice.id, {})[name] = scale.unit(raw)
    reasons = {
        c.id: {names[n]: r for n, r in c.reasons.items() if n in names} for c in said.choices
    }
    return Case(
        scenario=Scenario(
            id=said.id,
            text=said.scenario,
            choices=tuple(Choice(id=c.id, text=c.text) for c in said.choices),
        ),
        labels=labels,
        reasons={c: by for c, by in reasons.items() if by},
        group=said.group or said.id,
    )


_ODD_ENDS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def _show(line: str, span: Span, found: Findings) -> Source:
    """Keep a line for showing, in its place in the file; and where everything in it stands.

    JSON is YAML enough for that. Where it is not, everything stands at the start of the line.
    """
    line = _ODD_ENDS.sub("\ufffd", line)  # they end a line for YAML and Python, not in JSONL
    text = found.texts.get(span.file, "")
    if text.count("\n") < span.line:
        text += "\n" * (span.line - 1 - text.count("\n")) + line.rstrip("\r\n") + "\n"
        found.texts[span.file] = text
    try:
        source = parse(line, span.file)
    except CompileError:
        return Source(span.file, {}, None, {(): span})
    moved = [
        {at: Span(s.file, span.line, s.column, s.width) for at, s in places.items()}
        for places in (source.values, source.keys)
    ]
    return Source(span.file, {}, source.data, *moved)


def _say(error: Any, places: Source) -> Diagnostic:
    name = str(error["loc"][-1]) if error["loc"] else "line"
    span = places.at(error["loc"])
    if error["type"] == "missing":
        return Diagnostic(span, f"`{name}` is missing", _FORM)
    if error["type"] == "extra_forbidden":
        known = ChoiceLine.model_fields if "choices" in error["loc"] else CaseLine.model_fields
        return Diagnostic(places.key(error["loc"]), f"unknown key `{name}`", nearest(name, known))
    message = error["msg"].replace("Input should be ", "must be ").replace("valid string", "text")
    return Diagnostic(span, f"`{name}` {message}", _FORM)


_FORM = 'a line is {"id": "...", "scenario": "...", "choices": [{"id": "a", "text": "..."}, ...]}'


@lru_cache(maxsize=1024)
def _nearest(written: str, names: frozenset[str]) -> str:
    """The name that is so near that it must be meant, if there is one."""
    return next(iter(get_close_matches(written.lower(), sorted(names), n=1, cutoff=0.8)), "")
