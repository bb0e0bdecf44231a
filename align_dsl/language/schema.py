"""The shape of the files a person writes, and nothing more than the shape.

`read` says whether a file has it, with positions; `json_schema` says the same to an editor. What
needs a second look (names that must exist, numbers that must fit together) is `resolve`'s work.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import ErrorDetails

from align_dsl.errors import CompileError, Diagnostic, nearest
from align_dsl.language.source import Path, Source

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, Field(min_length=1)]
Number = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
Reference = Annotated[str, Field(pattern=r"^\$[a-z][a-z0-9_]{0,63}$")]
LibraryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$")]
Part = Literal["all", "train", "test"]


def shape(value: Any) -> str:
    """Which member of a union is meant, told by the shape of what was written."""
    if isinstance(value, dict):
        return "mapping"
    if isinstance(value, list | tuple):
        return "list"
    return "text" if isinstance(value, str) else "number"


_Shape = Discriminator(shape)


class Declaration(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True
    )


class ScaleDeclaration(Declaration):
    low: float
    high: float
    step: float = 1


class AttributeDeclaration(Declaration):
    """One attribute: what it means, what its two ends look like, how it is written in numbers."""

    about: Text
    high: Text
    low: Text
    title: Text | None = None
    kind: Literal["value", "quality", "group"] = "value"
    aliases: list[Text] = []
    includes: list[Text] = []
    excludes: list[Text] = []
    scale: ScaleDeclaration | None = None
    anchors: dict[Number, Text] = {}


class AttributesFile(Declaration):
    """A set of attributes: `attributes/NAME.yaml`."""

    version: Literal[1]
    set: Name
    about: Text
    attributes: dict[Name, AttributeDeclaration] = Field(min_length=1)


class ParamDeclaration(Declaration):
    """A parameter of a decider, in full. A bare value is short for `{default: value}`."""

    default: Any
    about: Text | None = None
    low: float | None = None
    high: float | None = None
    choices: list[Any] | None = None


class StepDeclaration(Declaration):
    """One algorithm, wired into a decider."""

    name: Name
    use: Name
    each: list[Literal["attribute", "choice"]] = []
    only: list[Text] | None = Field(None, description="rate these attributes and no others")
    samples: Annotated[
        Annotated[int, Tag("number"), Field(ge=1, le=64)] | Annotated[Reference, Tag("text")],
        _Shape,
    ] = 1
    order: Annotated[str, Field(pattern=r"^(given|shuffle|both|all|\$[a-z][a-z0-9_]{0,63})$")] = (
        "shuffle"
    )
    takes: dict[Name, Name] = {}
    with_: dict[Name, Any] = Field({}, alias="with")


class DecideDeclaration(Declaration):
    """How answers become weights: an aligner and the steps it takes."""

    use: Name
    take: Name | None = Field(None, description="the step for the aligner's first port")
    takes: dict[Name, Name] = {}
    with_: dict[Name, Any] = Field({}, alias="with")


ParamsDeclaration = dict[Name, Any]


class DeciderFile(Declaration):
    """A way of deciding, to be used by name: `deciders/NAME.yaml`."""

    version: Literal[1]
    decider: Name
    about: Text
    extends: LibraryName | None = None
    params: ParamsDeclaration = {}
    steps: list[StepDeclaration] = []
    decide: DecideDeclaration


class DeciderDeclaration(Declaration):
    """A decider in a program: one from the library with `use:`, or one of its own."""

    use: Name | None = None
    with_: dict[Name, Any] = Field({}, alias="with")
    model: Text | None = None
    about: Text | None = None
    extends: LibraryName | None = None
    params: ParamsDeclaration = {}
    steps: list[StepDeclaration] = []
    decide: DecideDeclaration | None = None


class PlaceDeclaration(Declaration):
    format: Name
    path: Text


class SplitDeclaration(Declaration):
    """Shares of the cases; whole groups go to one side."""

    train: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    group: Literal["scenario", "group"] = "group"
    seed: int = 0


class DataDeclaration(PlaceDeclaration):
    """Where the cases come from, and which of them are decided."""

    cases: Part = "all"
    split: SplitDeclaration | None = None
    exemplars: PlaceDeclaration | None = Field(None, description="a pool of its own")


Stand = Annotated[
    Annotated[Literal["low", "high"], Tag("text")] | Annotated[float, Tag("number")], _Shape
]


class TargetDeclaration(Declaration):
    """Targets: `each` end of every attribute, or `values` spelt out, or a `file`."""

    each: list[Stand] | None = None
    of: list[Text] | None = Field(None, description="with `each`: these attributes only")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+=-]{1,80}$")] | None = None
    values: dict[Text, Stand] | None = None
    weights: dict[Text, Annotated[float, Field(gt=0)]] = {}
    file: Text | None = None


class ModelDeclaration(Declaration):
    """A model and how to talk to it."""

    use: Text
    endpoint: Text | None = Field(None, description="URL of the server")
    key: Annotated[str, Field(pattern="^[A-Z][A-Z0-9_]*$")] | None = Field(
        None, description="name of the environment variable that holds the key"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = 0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    context: Annotated[int, Field(ge=256, le=100_000_000)] | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 120
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    keep_alive: Text | None = None


class OptimizeDeclaration(Declaration):
    """What `align-dsl optimize` tunes, and on which cases."""

    decider: Name
    trials: Annotated[int, Field(ge=1, le=100_000)] = 60
    cases: Part = Field("train", description="the cases that trials see")
    accept: Part = Field("test", description="the cases that the winner is judged on, once")
    seed: int = 0


class ProgramFile(Declaration):
    """What to run: `programs/NAME.yaml`."""

    version: Literal[1]
    program: Name
    about: Text
    extends: LibraryName | None = None
    attributes: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[list[Text], Tag("list"), Field(min_length=1)]
        | Annotated[dict[Name, AttributeDeclaration], Tag("mapping"), Field(min_length=1)],
        _Shape,
    ]
    data: DataDeclaration
    targets: Annotated[
        Annotated[TargetDeclaration, Tag("mapping")]
        | Annotated[list[TargetDeclaration], Tag("list"), Field(min_length=1)],
        _Shape,
    ]
    deciders: dict[Name, DeciderDeclaration] = Field(min_length=1)
    model: Annotated[
        Annotated[Text, Tag("text")] | Annotated[list[Text], Tag("list"), Field(min_length=1)],
        _Shape,
    ] = "embedded"
    models: dict[Name, ModelDeclaration] = {}
    metrics: list[Name] = Field(["accuracy"], min_length=1)
    optimize: OptimizeDeclaration | None = None
    seed: int = 0


KINDS: dict[str, type[Declaration]] = {
    "program": ProgramFile,
    "attributes": AttributesFile,
    "decider": DeciderFile,
}
_MARKS = {"program": "program", "attributes": "set", "decider": "decider"}


def kind_of(source: Source) -> str:
    """Which kind of file this is, told by its naming key."""
    data = source.data if isinstance(source.data, dict) else {}
    for kind, mark in _MARKS.items():
        if mark in data:
            return kind
    hint = "a program has `program:`, attributes have `set:`, a decider has `decider:`"
    wrong = Diagnostic(source.at(()), "this file does not say what it is", hint)
    raise CompileError([wrong], source.texts)


D = TypeVar("D", bound=Declaration)


def read(kind: type[D], source: Source) -> D:
    """Validate a whole file, turning every complaint of pydantic into a diagnostic in place."""
    return read_part(kind, source, (), source.data)


def read_part(kind: type[D], source: Source, below: Path, data: Any) -> D:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        wrong = [_diagnose(kind, source, below, e) for e in error.errors(include_url=False)]
        raise CompileError(wrong, source.texts) from None


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of one kind of file, for editors."""
    schema = KINDS[kind].model_json_schema(by_alias=True)
    _close_patterns(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _close_patterns(node: Any) -> None:
    # pydantic checks the keys of a mapping, but leaves the schema open to others
    if isinstance(node, dict):
        if "patternProperties" in node:
            node["additionalProperties"] = False
        for value in node.values():
            _close_patterns(value)
    elif isinstance(node, list):
        for value in node:
            _close_patterns(value)


def _diagnose(
    kind: type[Declaration], source: Source, below: Path, error: ErrorDetails
) -> Diagnostic:
    path: Path = (*below, *(p for p in error["loc"] if p not in _TAGS))
    name = next((str(p) for p in reversed(path) if isinstance(p, str) and p != "[key]"), "file")
    where, context = error["type"], error.get("ctx", {})
    if where == "missing":
        hint = _examples.get(name, "")
        return Diagnostic(source.key(path[:-1]), f"`{name}` is missing", hint)
    if where == "extra_forbidden":
        known = sorted(_fields(kind, error["loc"][:-1]) or [])
        return Diagnostic(source.key(path), f"unknown key `{name}`", nearest(name, known))
    if path and path[-1] == "[key]":
        return Diagnostic(source.key(path[:-1]), f"`{path[-2]}` cannot be a name here", _NAMES)
    said = f"`{name}`"
    if path and isinstance(path[-1], int):
        said = f"item {path[-1] + 1} of `{name}`"
    got = _described(error["input"])
    expected = _EXPECTED.get(where)
    if expected:
        return Diagnostic(source.at(path), f"{said} must be {expected}, not {got}", _fix(error))
    if where == "literal_error":
        options = str(context["expected"]).replace("'", "`")
        return Diagnostic(
            source.at(path), f"{said} must be {options}, not {got}", _near_literal(error)
        )
    if where == "string_pattern_mismatch":
        return Diagnostic(source.at(path), f"{said} cannot be {got}", _pattern_hint(context))
    if where in ("too_short", "string_too_short"):
        return Diagnostic(
            source.at(path), f"{said} is empty", "write at least one, or leave it out"
        )
    message = error["msg"].replace("Input should be ", "")
    return Diagnostic(source.at(path), f"{said} must be {message}, not {got}")


_TAGS = frozenset({"text", "list", "mapping", "number"})
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
    "high": "say what a choice at the high end shows",
    "low": "say what a choice at the low end shows",
}


def _described(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str() if len(value) > 40:
            return f"`{value[:37]}...`"
        case _:
            return f"`{value}`"


def _fix(error: ErrorDetails) -> str:
    match error["type"], error["input"]:
        case _, None:
            return "give it a value, or delete the key"
        case "string_type", bool() | int() | float():
            return f'put it in quotes: "{_described(error["input"]).strip("`")}"'
        case "list_type", str() | int() | float():
            return f"put it in brackets: [{error['input']}]"
        case "int_type" | "float_type", str():
            return "write the number without quotes"
    return ""


def _near_literal(error: ErrorDetails) -> str:
    options = [o.strip(" '") for o in error["ctx"]["expected"].replace(" or ", ",").split(",")]
    hint = nearest(str(error["input"]), options)
    return hint if hint.startswith("did") else ""


def _pattern_hint(context: dict[str, Any]) -> str:
    pattern = str(context.get("pattern", ""))
    if "shuffle" in pattern:
        return "write given, shuffle, both, all, or a parameter such as $order"
    if pattern.startswith("^\\$"):
        return "write a number, or a parameter such as $samples"
    if "[A-Z]" in pattern and "_]*" in pattern:
        return "name an environment variable, such as OPENAI_API_KEY; never the key itself"
    if pattern.startswith("^-?"):
        return "anchors are numbers on the scale: `0: what a zero looks like`"
    if "A-Za-z" in pattern:
        return "letters, digits and . _ / + = - only"
    return _NAMES


def _fields(kind: Any, loc: tuple[int | str, ...]) -> set[str]:
    """The keys that are known at `loc`, found by walking down the annotations."""
    here: list[Any] = [kind]
    for part in loc:
        if part not in _TAGS:
            here = [below for one in here for below in _below(one, part)]
    return {
        f.alias or name
        for one in here
        for member in _members(one)
        if isinstance(member, type) and issubclass(member, BaseModel)
        for name, f in member.model_fields.items()
    }


def _below(kind: Any, part: int | str) -> Iterator[Any]:
    for member in _members(kind):
        arguments = typing.get_args(member)
        if isinstance(part, int) and typing.get_origin(member) is list:
            yield arguments[0]
        elif typing.get_origin(member) is dict:
            yield arguments[1]
        elif isinstance(member, type) and issubclass(member, BaseModel):
            for name, f in member.model_fields.items():
                if part in (name, f.alias):
                    yield f.annotation


def _members(kind: Any) -> Iterator[Any]:
    origin = typing.get_origin(kind)
    if origin is Annotated:
        yield from _members(typing.get_args(kind)[0])
    elif origin in (typing.Union, type(int | str)):
        for member in typing.get_args(kind):
            yield from _members(member)
    else:
        yield kind
