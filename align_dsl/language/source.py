"""YAML text -> plain data plus a source position for every key and value.

Read from the parser's events, one by one, so that whatever is refused (anchors, tags, repeated
keys, sheer size) is refused where it stands, before anything is built from it. Scalars are read
by the core schema of YAML 1.2: `no`, `on` and `1:30` stay text.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from align_dsl.errors import CompileError, Diagnostic, Span, rest
from align_dsl.language.files import instead, unusable

Path = tuple[str | int, ...]

MAX_BYTES = 1_000_000  # a program is written by hand; data belongs into JSONL
MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_WRONG = 100  # mistakes that are listed; the rest is counted

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
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
    return parse(read_text(path, name), name)


def read_text(path: FilePath, name: str) -> str:
    """The text of a file, if it is one, and of a size that a person may have written."""
    problem = "this is a folder" if os.path.isdir(path) else unusable(path)
    if problem:
        hint = instead(path) or "give the path of a YAML file"
        raise CompileError([Diagnostic(Span(name), problem, hint)], {})
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        said = f"cannot be read: {error.strerror or error}"
        raise CompileError(
            [Diagnostic(Span(name), said, "check the path and its rights")], {}
        ) from None
    return decode(raw, name)


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
        before = _LINE_END.split(raw[: error.start].decode("utf-8-sig", "replace"))
        line, column = len(before), len(before[-1]) + 1
        said = f"this byte (0x{raw[error.start]:02x}) is not UTF-8"
        raise CompileError(
            [Diagnostic(Span(file, line, column), said, "save the file as UTF-8")],
            {file: raw.decode("utf-8-sig", "replace")},
        ) from None
    return text.replace("\r\n", "\n")


def parse(text: str, file: str = "<text>") -> Source:
    if found := _FORBIDDEN.search(text):
        before = _LINE_END.split(text[: found.start()])
        line, column = len(before), len(before[-1]) + 1
        said = f"the character U+{ord(found.group()):04X} is not allowed in YAML"
        wrong = Diagnostic(Span(file, line, column), said, "delete it, or write it as an escape")
        raise CompileError([wrong], {file: text})
    builder = _Builder(file, _LINE_END.split(text))
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        builder.wrong.append(_not_yaml(error, file, builder.lines))
    except yaml.YAMLError as error:
        builder.say(Span(file), f"not YAML: {error}")
    except _Enough:
        pass
    if builder.unlisted is not None:
        builder.wrong.append(rest(builder.unlisted, builder.more))
    if not builder.wrong and not builder.done:
        builder.say(Span(file), "the file is empty", "start it with `version: 1`")
    if builder.wrong:
        raise CompileError(builder.wrong, {file: text})
    return Source(file, {file: text}, builder.data, builder.values, builder.keys)


def _not_yaml(error: yaml.MarkedYAMLError, file: str, lines: list[str]) -> Diagnostic:
    """The parser's complaint in our words, and where the mistake begins rather than was noticed."""
    problem, began = str(error.problem), error.context_mark
    mark = error.problem_mark or began
    at, width = ((mark.line, mark.column) if mark else (0, 0)), 1
    line = lines[at[0]] if at[0] < len(lines) else ""
    character = line[at[1] : at[1] + 1]
    opened = ""
    if began is not None and began.line < len(lines):
        opened = lines[began.line][began.column : began.column + 1]
    if opened in _OPENED and began and ("expected" in problem or "end of stream" in problem):
        said = f"this {_OPENED[opened]} is never closed"
        hint = f"the reader gave up in line {at[0] + 1}: is a {_CLOSED[opened]} missing?"
        at = (began.line, began.column)
    elif "\t" in line[: at[1] + 1] and not line[: at[1] + 1].strip():
        said, hint = "a tab cannot indent", "indent with spaces"
    elif "could not find expected ':'" in problem and began is not None:
        at, width = (began.line, began.column), len(lines[began.line].strip())
        said, hint = no_colon(lines[began.line][began.column :])
    elif "unexpected ':'" in problem:
        said, hint = "no space follows this colon", "write `key: value`, or put the text in quotes"
    elif "expected <document start>" in problem:
        said, hint = "a second document begins here", "one file, one document"
        if file.endswith(".jsonl"):
            said = "these are cases, one a line"
            hint = "a program names them: `data: {format: jsonl, path: PATH}`"
    elif "cannot start any token" in problem:
        said = f"a text cannot start with `{character}`"
        hint = "put the text in quotes"
    elif "mapping values are not allowed" in problem:
        said = "a second `: ` in one line"
        hint = "a text that contains `: ` must stand in quotes"
        if ": " not in line[: at[1]]:
            said = "no `key: value` can stand here"
            hint = "is the line above complete, and this one indented as it should be?"
    elif "alphabetic or numeric" in problem:
        said = f"a text cannot start with `{line[at[1] - 1 : at[1]]}`"
        hint = "put the text in quotes"
    elif "escape" in problem:
        said = f"not YAML: {problem}"
        hint = "in double quotes a backslash starts an escape: write it twice, or use single quotes"
    elif "expected key" in problem or "'-' indicator" in problem or "block end" in problem:
        said = "this does not fit what stands above"
        hint = "check the indentation, and that nothing follows a closing quote or bracket"
        if line[at[1] - 1 : at[1]] == "'":
            hint = "a text in single quotes says a quote by two of them: 'it''s'"
    else:
        said = f"not YAML: {'; '.join(s for s in (error.context, error.problem) if s)}"
        hint = "check indentation, quotes and brackets on this line and the one before"
    return Diagnostic(Span(file, at[0] + 1, at[1] + 1, width), said, hint)


def no_colon(line: str) -> tuple[str, str]:
    """What to say of a line that should have been `key: value`.

    >>> no_colon("program mta")
    ('this line is no `key: value`: the colon is missing', 'did you mean `program: mta`?')
    >>> no_colon("program:mta")[0]
    'this line is no `key: value`: no space follows the colon'
    """
    key, colon, value = line.strip().partition(":")
    why = "no space follows the colon"
    if not colon:
        why = "the colon is missing"
        key, _, value = key.replace("=", " ").partition(" ")
    elif value[:1].isspace():
        why = f"what follows the colon (U+{ord(value[0]):04X}) is no plain space"
    meant = f"{key}: {value.strip()}".strip()
    hint = f"did you mean `{meant}`?" if len(meant) <= 80 else "write `key: value`"
    return f"this line is no `key: value`: {why}", hint


_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as the parser counts lines
_OPENED = {"[": "`[`", "{": "`{`", '"': "quote", "'": "quote"}
_CLOSED = {"[": "`]` or a comma", "{": "`}` or a comma", '"': "quote", "'": "quote"}


class _Enough(Exception):
    """A limit was passed: reading on would only cost time."""


class _Builder:
    """Builds data from events with a stack of its own, so depth costs no Python recursion."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file = file
        self.lines = lines
        self.wrong: list[Diagnostic] = []
        self.data: Any = None
        self.done = False
        self.values: dict[Path, Span] = {}
        self.keys: dict[Path, Span] = {}
        self.open: list[_Open] = []
        self.nodes = 0
        self.unlisted: Span | None = None  # the first mistake past the limit
        self.more = 0

    def say(self, span: Span, message: str, hint: str = "") -> None:
        if len(self.wrong) < MAX_WRONG:
            self.wrong.append(Diagnostic(span, message, hint))
        else:
            self.unlisted, self.more = self.unlisted or span, self.more + 1

    def span(self, event: yaml.Event) -> Span:
        start: Any = event.start_mark
        end: Any = event.end_mark
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
                closed, whole = self.open.pop(), self.span(event)
                begun = self.values[closed.path]
                if closed.flow and whole.line == begun.line:
                    width = whole.column + whole.width - begun.column
                    self.values[closed.path] = Span(self.file, begun.line, begun.column, width)

    def refuse_extras(self, event: Any) -> None:
        if event.anchor is not None:
            span = self.token(event, f"&{event.anchor}")
            self.say(span, "YAML anchors are not allowed", "use `extends:`, or repeat it")
        if event.tag is not None and event.tag != "!":
            tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
            said = f"the tag `{tag}` is not allowed"
            hint = "delete it: values are plain text, numbers, lists and mappings"
            self.say(self.token(event, tag), said, hint)

    def token(self, event: Any, token: str) -> Span:
        """Where an anchor or tag stands: at the start of its value, in either order."""
        line, column = event.start_mark.line, event.start_mark.column
        rest = self.lines[line][column:] if line < len(self.lines) else ""
        at = max(0, rest.find(token))
        width = len(token) if rest.startswith(token, at) else 1
        return Span(self.file, line + 1, column + at + 1, width)

    def begin(self, event: Any) -> None:
        new: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self.put(new, self.span(event))
        self.open.append(_Open(path, new, flow=bool(event.flow_style)))
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
        if _ENDLESS.fullmatch(text):
            self.say(self.span(event), f"`{text}` is not a usable number", "write a finite number")
            return None
        whole = _INT.fullmatch(text) is not None
        number: float
        if whole:
            number = int(text, 0 if text[1:2] in ("o", "x") else 10) if len(text) < 40 else math.inf
        elif _FLOAT.fullmatch(text):
            number = float(text)
        else:
            return text
        if not math.isfinite(number) or (whole and abs(number) > 2**53):
            hint = 'write a smaller one, or quote it if it is text: "..."'
            self.say(self.span(event), "this number is too large to be kept exactly", hint)
            return None
        # 3.0 and 3 are one number, as in JSON; so the JSON schema and this loader agree
        return int(number) if float(number).is_integer() and abs(number) <= 2**53 else number


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been seen yet."""

    path: Path
    data: Any
    key: str | None = None
    flow: bool = False  # written in brackets
