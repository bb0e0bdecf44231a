"""YAML text -> plain data plus a source position for every key and value.

Read from the parser's events, one by one, so that whatever is refused (anchors, tags, repeated
keys, sheer size) is refused where it stands, before anything is built from it. Scalars are read
by the core schema of YAML 1.2: `no`, `on` and `1:30` stay text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from align_dsl.errors import CompileError, Diagnostic, Span

Path = tuple[str | int, ...]

MAX_BYTES = 1_000_000  # a program is written by hand; data belongs into JSONL
MAX_DEPTH = 32
MAX_NODES = 50_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file: what it says, and where it says it."""

    file: str
    texts: dict[str, str]  # every file that took part, for showing errors
    data: Any
    values: dict[Path, Span] = field(default_factory=dict)
    keys: dict[Path, Span] = field(default_factory=dict)

    def at(self, path: Path) -> Span:
        """Where the value of `path` stands, or its nearest enclosing value."""
        return self.values[self._known(path)]

    def key(self, path: Path) -> Span:
        """Where the key of `path` stands; a list item has none, so its value."""
        return self.keys.get(path) or self.at(path)

    def _known(self, path: Path) -> Path:
        # pydantic adds the names of union members to a path; the file has never heard of them
        known: Path = ()
        for part in path:
            if (*known, part) in self.values:
                known = (*known, part)
        return known

    def sub(self, path: Path) -> Source:
        """One value of the file, as if it were a file of its own; positions stay true."""
        data = self.data
        for part in path:
            data = data[part]
        n = len(path)
        values = {p[n:]: s for p, s in self.values.items() if p[:n] == path}
        keys = {p[n:]: s for p, s in self.keys.items() if p[:n] == path and len(p) > n}
        return Source(self.file, self.texts, data, values, keys)


def read_source(path: FilePath, shown: str | None = None) -> Source:
    """Parse a file. `shown` is the name used in messages."""
    name = shown or str(path)
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file"
            problem = f"this is {what}" if path.exists() else "there is no such file"
            raise CompileError(
                [Diagnostic(Span(name), problem, "give the path of a YAML file")], {}
            )
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        said = f"cannot be read: {error.strerror or error}"
        raise CompileError(
            [Diagnostic(Span(name), said, "check the path and its rights")], {}
        ) from None
    return parse(decode(raw, name), name)


def decode(raw: bytes, file: str) -> str:
    if len(raw) > MAX_BYTES:
        raise CompileError(
            [
                Diagnostic(
                    Span(file),
                    f"the file is larger than {MAX_BYTES:,} bytes",
                    "put scenarios into a JSONL file and name it under `data:`",
                )
            ],
            {},
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
        said = f"this byte (0x{raw[error.start]:02x}) is not UTF-8"
        raise CompileError(
            [Diagnostic(Span(file, line, column), said, "save the file as UTF-8")],
            {file: raw.decode("utf-8", "replace")},
        ) from None
    return text.replace("\r\n", "\n")


def parse(text: str, file: str = "<text>") -> Source:
    if found := _FORBIDDEN.search(text):
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - (text.rfind("\n", 0, found.start()) + 1) + 1
        said = f"the character U+{ord(found.group()):04X} is not allowed in YAML"
        wrong = Diagnostic(Span(file, line, column), said, "delete it, or write it as an escape")
        raise CompileError([wrong], {file: text})
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        span = Span(file, mark.line + 1, mark.column + 1) if mark else Span(file)
        said = "; ".join(s for s in (error.context, error.problem) if s)
        builder.say(span, f"not YAML: {said}", _advice(text, span))
    except yaml.YAMLError as error:
        builder.say(Span(file), f"not YAML: {error}")
    except _Enough:
        pass
    if not builder.wrong and not builder.done:
        builder.say(Span(file), "the file is empty", "start it with `version: 1`")
    if builder.wrong:
        raise CompileError(builder.wrong, {file: text})
    return Source(file, {file: text}, builder.data, builder.values, builder.keys)


def _advice(text: str, span: Span) -> str:
    lines = text.splitlines()
    line = lines[span.line - 1] if span.line <= len(lines) else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return "indent with spaces, not tabs"
    if line.count(": ") > 1:
        return "a text that contains `: ` must stand in quotes"
    return "check indentation, quotes and brackets on this line and the one before"


class _Enough(Exception):
    """A limit was passed: reading on would only cost time."""


class _Builder:
    """Builds data from events with a stack of its own, so depth costs no Python recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.wrong: list[Diagnostic] = []
        self.data: Any = None
        self.done = False
        self.values: dict[Path, Span] = {}
        self.keys: dict[Path, Span] = {}
        self.open: list[_Open] = []
        self.nodes = 0

    def say(self, span: Span, message: str, hint: str = "") -> None:
        self.wrong.append(Diagnostic(span, message, hint))

    def span(self, event: yaml.Event) -> Span:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if start.line == end.line else 1
        return Span(self.file, start.line + 1, start.column + 1, max(1, width))

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent() if self.done:
                self.say(
                    self.span(event), "a second document begins here", "one file, one document"
                )
                raise _Enough
            case yaml.AliasEvent():
                self.say(
                    self.span(event), "YAML aliases are not allowed", "use `extends:`, or repeat it"
                )
                self.put(None, self.span(event))
            case yaml.ScalarEvent():
                self.refuse_extras(event)
                self.put_scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self.refuse_extras(event)
                self.begin(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.open.pop()

    def refuse_extras(self, event: Any) -> None:
        if event.anchor is not None:
            self.say(
                self.span(event), "YAML anchors are not allowed", "use `extends:`, or repeat it"
            )
        if event.tag is not None and event.tag != "!":
            said = f"the tag `{event.tag}` is not allowed"
            self.say(self.span(event), said, "values are plain text, numbers, lists and mappings")

    def begin(self, event: Any) -> None:
        new: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self.put(new, self.span(event))
        self.open.append(_Open(path, new))
        if len(self.open) > MAX_DEPTH:
            self.say(self.span(event), f"nested deeper than {MAX_DEPTH} levels", "flatten it")
            raise _Enough

    def put_scalar(self, event: yaml.ScalarEvent) -> None:
        inside = self.open[-1] if self.open else None
        if inside is not None and isinstance(inside.data, dict) and inside.key is None:
            self.begin_entry(inside, str(event.value), self.span(event))
            return
        plain = event.style is None or event.style == ""
        self.put(self.scalar(event) if plain else event.value, self.span(event))

    def begin_entry(self, inside: _Open, key: str, span: Span) -> None:
        path = (*inside.path, key)
        if key in inside.data:
            first = self.keys[path]
            self.say(span, f"`{key}` is given twice", f"it already stands in line {first.line}")
        else:
            self.keys[path] = span
        inside.key = key

    def put(self, value: Any, span: Span) -> Path:
        """Place a value where the stack says it belongs."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.say(span, f"more than {MAX_NODES:,} values in one file", "put data into JSONL")
            raise _Enough
        if not self.open:
            self.data, self.done = value, True
            self.values[()] = span
            return ()
        inside = self.open[-1]
        path: Path
        if isinstance(inside.data, list):
            path = (*inside.path, len(inside.data))
            inside.data.append(value)
        elif inside.key is None:  # a mapping or list where a key should be
            self.say(span, "a key must be plain text", "write `key: value`")
            raise _Enough
        else:
            path = (*inside.path, inside.key)
            inside.data[inside.key] = value
            inside.key = None
        self.values[path] = span
        return path

    def scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text: str = event.value
        if text in _WORDS:
            return _WORDS[text]
        if text in (".inf", "-.inf", "+.inf", ".nan", ".Inf", ".NaN", ".INF", ".NAN"):
            self.say(self.span(event), f"`{text}` is not a usable number", "write a finite number")
            return None
        number: float
        if _OTHER_INT.fullmatch(text) and len(text) < 20:
            return int(text, 0)
        if not _FLOAT.fullmatch(text):
            return text
        number = float(text)
        if not math.isfinite(number) or (_INT.fullmatch(text) and len(text) > 18):
            self.say(self.span(event), "this number is too large", "quote it if it is text")
            return None
        # 3.0 and 3 are one number, as in JSON; so the JSON schema and this loader agree
        return int(number) if number.is_integer() and abs(number) < 2**53 else number


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been seen yet."""

    path: Path
    data: Any
    key: str | None = None
