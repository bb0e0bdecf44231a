"""Our own format: JSON lines, one case a line, labels on each attribute's own scale.

{"id": "...", "group": "...", "scenario": "...",
 "choices": [{"id": "a", "text": "...", "labels": {"fairness": 7}, "reasons": {"fairness": "..."}}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from align_dsl.errors import Diagnostic, Findings, Span, nearest
from align_dsl.language.attributes import by_any_name
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
        span = Span(span.file, span.line, error.colno)
        found.texts[span.file] = "\n" * (span.line - 1) + line.rstrip("\n")
        found.error(span, f"not JSON: {error.msg.lower()}", "one whole object a line")
        return None
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            found.diagnostics.append(_say(error, span))
        return None
    labels: dict[str, dict[str, float]] = {}
    for choice in said.choices:
        for written, raw in choice.labels.items():
            name = names.get(written) or names.get(written.lower())
            if name is None:  # labelled on more than this program asks for
                continue
            scale = attributes[name].scale
            if not scale.low <= raw <= scale.high:
                said_ = f"the label {raw:g} of choice `{choice.id}` is off the scale of `{name}`"
                found.error(span, said_, f"write a number from {scale.low:g} to {scale.high:g}")
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


def _say(error: Any, span: Span) -> Diagnostic:
    where = ".".join(str(p) for p in error["loc"])
    if error["type"] == "missing":
        return Diagnostic(span, f"`{where}` is missing")
    if error["type"] == "extra_forbidden":
        last = str(error["loc"][-1])
        known = ChoiceLine.model_fields if "choices" in error["loc"] else CaseLine.model_fields
        return Diagnostic(span, f"unknown key `{where}`", nearest(last, known))
    message = error["msg"].replace("Input should be ", "must be ")
    return Diagnostic(span, f"`{where}` {message}")
