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
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from align_dsl.datasets._mistakes import Mistakes, Where
from align_dsl.errors import Span, nearest
from align_dsl.language.attributes import by_any_name
from align_dsl.language.complaint import described
from align_dsl.types import Attribute, Case, Choice, Scenario

Id = Annotated[str, Field(min_length=1)]


class ChoiceLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: Id
    text: str
    labels: dict[str, float] = {}
    reasons: dict[str, str] = {}


class CaseLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: Id
    scenario: str
    choices: Annotated[list[ChoiceLine], Field(min_length=1)]
    group: str = ""


def jsonl(path: Path, attributes: Mapping[str, Attribute]) -> Iterator[Case]:
    """Read a file, or every .jsonl file of a folder."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    names = by_any_name(attributes)
    seen: dict[str, Span] = {}
    for file in files:
        mistakes = Mistakes(file)
        cases = []
        # bytes that are no UTF-8 are kept apart, to be complained of where they stand
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    one = _Line(number, line, mistakes, names, attributes)
                    case = one.case(seen)
                    if case:
                        cases.append(case)
                    if one.is_of_another_format:
                        break
        mistakes.stop_if_any()
        yield from cases


class _Line:
    """One line of a file; complains into `mistakes`."""

    def __init__(
        self,
        number: int,
        line: str,
        mistakes: Mistakes,
        names: Mapping[str, str],
        attributes: Mapping[str, Attribute],
    ) -> None:
        self.number = number
        self.line = line
        self.mistakes = mistakes
        self.names = names
        self.attributes = attributes
        self.is_of_another_format = False

    def case(self, seen: dict[str, Span]) -> Case | None:
        """The case; none where it has a mistake. `seen` tells where an id stood first."""
        before = self.mistakes.count
        data = self._json()
        if self.mistakes.count > before:
            return None
        try:
            said = CaseLine.model_validate(data)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                self._say(one, data)
            return None
        here = Span(self.mistakes.file, self.number)
        first = seen.setdefault(said.id, here)
        if first is not here:
            line = f"line {first.line}" if first.file == here.file else f"{first.file}:{first.line}"
            hint = f"the first stands in {line}; give one of them another id"
            self._wrong(f"two cases are named `{said.id}`", hint, lambda p: p.at(("id",)))
        self._choices(said)
        labels = {c.id: self._labels(i, c) for i, c in enumerate(said.choices)}
        if self.mistakes.count > before:
            return None
        reasons = {
            c.id: {self.names[n]: r for n, r in c.reasons.items() if n in self.names}
            for c in said.choices
        }
        return Case(
            scenario=Scenario(
                id=said.id,
                text=said.scenario,
                choices=tuple(Choice(id=c.id, text=c.text) for c in said.choices),
            ),
            labels={c: by for c, by in labels.items() if by},
            reasons={c: by for c, by in reasons.items() if by},
            group=said.group or said.id,
        )

    def _json(self) -> Any:
        if bad := _NOT_UTF8.search(self.line):
            said = f"this byte (0x{ord(bad.group()) - 0xDC00:02x}) is not UTF-8"
            self._wrong(said, "save the file as UTF-8", self._column(bad.start() + 1))
            self.is_of_another_format = True
            return None
        try:
            data = _DECODER.decode(self.line)
            if (at := self.line.lower().find("\\ud")) >= 0:  # half a character, unless in a pair
                json.dumps(data, ensure_ascii=False).encode()
            return data
        except UnicodeEncodeError:
            half = self.line[at : at + 6]
            said, hint = f"`{half}` is half of a character", "write the whole character"
            self._wrong(said, hint, self._column(at + 1))
        except json.JSONDecodeError as error:
            hint = "one whole object a line"
            if self.line.strip() in ("{", "[", "[{") or self.line.lstrip().startswith("[{"):
                hint = "this is one JSON text over several lines; JSONL has one object a line"
                self.is_of_another_format = True
            said = f"not JSON: {error.msg.lower()}"
            self._wrong(said, hint, self._column(error.colno))
        except _Twice as error:
            column = self.line.rfind(json.dumps(error.key, ensure_ascii=False)) + 1
            self._wrong(f"`{error.key}` is given twice", "delete one", self._column(max(1, column)))
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or a bomb
            deep = isinstance(error, RecursionError)
            hint = "it is nested too deeply" if deep else "a number in it is too long"
            self._wrong("not JSON that can be read", hint)
        return None

    def _choices(self, said: CaseLine) -> None:
        ids: set[str] = set()
        for i, choice in enumerate(said.choices):
            if choice.id in ids:
                what = f"two choices of the case `{said.id}` have the same id, `{choice.id}`"
                self._wrong(what, "give one of them another", _at("choices", i, "id"))
            ids.add(choice.id)

    def _labels(self, i: int, choice: ChoiceLine) -> dict[str, float]:
        labels: dict[str, float] = {}
        for written, raw in choice.labels.items():
            name = self._name(written)
            if name is None:  # labelled on more than this program asks for, or misspelt
                meant = self.names.get(_nearest(written, frozenset(self.names)))
                if meant and meant not in choice.labels:
                    key = _key("choices", i, "labels", written)
                    said = f"no attribute is named `{written}`"
                    self._wrong(said, f"did you mean `{meant}`?", key)
                continue
            scale = self.attributes[name].scale
            if name not in labels and scale.low <= raw <= scale.high:
                labels[name] = scale.unit(raw)
                continue
            place = _at("choices", i, "labels", written)
            if name in labels:
                said = f"choice `{choice.id}` is labelled on `{name}` twice"
                self._wrong(said, f"delete one: `{written}` is another name for it", place)
            else:
                said = f"the label {raw:g} of choice `{choice.id}` is off the scale of `{name}`"
                self._wrong(said, f"write a number from {scale.low:g} to {scale.high:g}", place)
        return labels

    def _name(self, written: str) -> str | None:
        return self.names.get(written) or self.names.get(written.lower())

    def _say(self, error: Any, data: Any) -> None:
        """What pydantic complains of, in words."""
        loc, kind, value = error["loc"], error["type"], error["input"]
        name = next((str(part) for part in reversed(loc) if isinstance(part, str)), "line")
        if not loc and isinstance(value, list):
            self.is_of_another_format = True
        if kind == "missing":
            self._wrong(f"`{name}` is missing", _FORM, _at(*loc))
        elif kind == "extra_forbidden":
            known = ChoiceLine.model_fields if "choices" in loc else CaseLine.model_fields
            self._wrong(f"unknown key `{name}`", nearest(name, known), _key(*loc))
        elif kind in ("too_short", "string_too_short"):
            said = "the case offers no choices" if name == "choices" else f"`{name}` is empty"
            self._wrong(said, _FORM, _at(*loc))
        elif kind == "float_type" and "labels" in loc:
            self._say_label(loc, value, data["choices"][loc[1]].get("id"))
        else:
            what = "a line" if not loc else f"`{name}`"
            if loc and isinstance(loc[-1], int):
                what = f"item {loc[-1] + 1} of `{name}`"
            wanted = _WANTED.get(kind, error["msg"].replace("Input should be ", ""))
            hint = _HINTS.get(name, _FORM) if loc else _FORM
            if self.is_of_another_format:
                hint = "this is one JSON list; JSONL has one object a line, without brackets"
            self._wrong(f"{what} must be {wanted}, not {described(value)}", hint, _at(*loc))

    def _say_label(self, loc: tuple[str | int, ...], value: Any, choice: Any) -> None:
        written = str(loc[-1])
        name = self._name(written)
        of = f"of choice `{choice}` on `{written}`"
        said = f"the label {of} must be a number, not {described(value)}"
        hint = "a label is a number on the scale of its attribute"
        if name is not None:
            scale = self.attributes[name].scale
            hint = f"write a number from {scale.low:g} to {scale.high:g}, the scale of `{name}`"
            if value in ("low", "high"):
                hint += f"; its {value} end is {getattr(scale, value):g}"
            elif isinstance(value, str) and _NUMBER.fullmatch(value):
                scale_is = f"the scale of `{name}` is {scale.low:g} to {scale.high:g}"
                hint = f"write the number without quotes; {scale_is}"
            elif value is None:
                hint += "; or leave it away where there is no label"
        self._wrong(said, hint, _at(*loc))

    def _column(self, column: int) -> Where:
        return lambda _: Span(self.mistakes.file, self.number, column)

    def _wrong(self, message: str, hint: str, where: Where | None = None) -> None:
        self.mistakes.add(self.number, self.line, message, hint, where or _at())


def _at(*path: str | int) -> Where:
    return lambda places: places.at(path)


def _key(*path: str | int) -> Where:
    return lambda places: places.key(path)


class _Twice(ValueError):
    def __init__(self, key: str) -> None:
        self.key = key


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, each of whose keys is there once: JSON would silently take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for i, key in enumerate(keys) if key in keys[:i]))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_NUMBER = re.compile(r"\s*[-+]?[0-9]+(\.[0-9]+)?\s*")
_WANTED = {
    "string_type": "text",
    "string_unicode": "text that can be written as UTF-8",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_FORM = 'a line is {"id": "...", "scenario": "...", "choices": [{"id": "a", "text": "..."}, ...]}'
_HINTS = {
    "labels": 'labels are {"ATTRIBUTE": NUMBER}, beside the text of the choice they are about',
    "reasons": 'reasons are {"ATTRIBUTE": "why its label is what it is"}',
}


@lru_cache(maxsize=1024)
def _nearest(written: str, names: frozenset[str]) -> str:
    """The name that is so near that it must be meant, if there is one."""
    return next(iter(get_close_matches(written.lower(), sorted(names), n=1, cutoff=0.8)), "")
