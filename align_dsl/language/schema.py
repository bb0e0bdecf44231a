"""The shape of the files a person writes, and nothing more than the shape.

`read` says whether a file has it, with positions; `json_schema` says the same to an editor. What
needs a second look (names that must exist, numbers that must fit together) is `resolve`'s work.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)

from align_dsl.errors import CompileError
from align_dsl.language.complaint import diagnose
from align_dsl.language.extend import OWN
from align_dsl.language.source import Path, Source

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, Field(min_length=1)]
# to Python, true is 1
Version = Annotated[Literal[1], BeforeValidator(lambda v: "true" if v is True else v)]
Number = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
Reference = Annotated[str, Field(pattern=r"^\$[a-z][a-z0-9_]{0,63}$")]
FormatName = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]{0,63}$")]
LibraryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]+$")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what every generator of numbers takes
Part = Literal["all", "train", "test"]


def shape(value: Any) -> str:
    """Which member of a union is meant, told by the shape of what was written.

    No key can be written like these tags: pydantic puts them among the keys when it complains.
    """
    if isinstance(value, dict):
        return "<mapping>"
    if isinstance(value, list | tuple):
        return "<list>"
    return "<text>" if isinstance(value, str) else "<number>"


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

    version: Version
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


class DemoAnswerDeclaration(Declaration):
    """What a worked example answers; choices go by their ids."""

    because: str = ""
    ratings: dict[Text, float] | None = None
    rating: float | None = None
    choice: Text | None = None


class DemoDeclaration(Declaration):
    """A worked example of a step, from a case of the data."""

    case: Text
    attribute: Text | None = None
    target: dict[Text, Annotated[float, Field(ge=0, le=1)]] | None = None
    choice: Text | None = Field(None, description="the choice that is asked about")
    choices: list[Text] | None = Field(
        None, min_length=1, description="ids of the choices shown, in order: A, B, C"
    )
    answer: DemoAnswerDeclaration | None = Field(
        None, description="what is answered; the labels of the case where it is left out"
    )


class StepDeclaration(Declaration):
    """One algorithm, wired into a decider."""

    name: Name
    use: Name
    each: list[Literal["attribute", "choice"]] = []
    only: list[Text] | None = Field(None, description="rate these attributes and no others")
    samples: Annotated[
        Annotated[int, Tag("<number>"), Field(ge=1, le=64)] | Annotated[Reference, Tag("<text>")],
        _Shape,
    ] = 1
    order: Annotated[str, Field(pattern=r"^(given|shuffle|both|all|\$[a-z][a-z0-9_]{0,63})$")] = (
        "shuffle"
    )
    temperature: (
        Annotated[
            Annotated[float, Tag("<number>"), Field(ge=0, le=2)]
            | Annotated[Reference, Tag("<text>")],
            _Shape,
        ]
        | None
    ) = Field(None, description="of this step's questions; the model's where it is not said")
    scale: Annotated[
        Annotated[ScaleDeclaration, Tag("<mapping>")]
        | Annotated[str, Tag("<text>"), Field(pattern=r"^(own|\$[a-z][a-z0-9_]{0,63})$")],
        _Shape,
    ] = Field("own", description="the numbers this step is to answer with")
    definitions: Annotated[
        Annotated[dict[Text, Text], Tag("<mapping>")] | Annotated[Reference, Tag("<text>")],
        _Shape,
    ] = Field({}, description="attribute -> other words for its `about`, in this step alone")
    demos: list[DemoDeclaration] = Field([], description="worked examples of this step")
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

    version: Version
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
    format: FormatName
    path: Text


class SplitDeclaration(Declaration):
    """Shares of the cases; whole groups go to one side."""

    train: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]
    group: Literal["scenario", "group"] = "group"
    seed: Seed = 0


class DataDeclaration(PlaceDeclaration):
    """Where the cases come from, and which of them are decided."""

    cases: Part = "all"
    split: SplitDeclaration | None = None
    exemplars: PlaceDeclaration | None = Field(None, description="a pool of its own")


Stand = Annotated[
    Annotated[Literal["low", "high"], Tag("<text>")] | Annotated[float, Tag("<number>")], _Shape
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
    endpoint: (
        Annotated[
            Annotated[Text, Tag("<text>")]
            | Annotated[list[Text], Tag("<list>"), Field(min_length=1)],
            _Shape,
        ]
        | None
    ) = Field(None, description="URL of the server; of several that share the work, a list")
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


class RangeDeclaration(Declaration):
    """The numbers that a setting may have."""

    low: float
    high: float
    step: Annotated[float, Field(gt=0)] | None = None
    log: bool = False


_NAME = "[a-z][a-z0-9_]{0,63}"
SettingName = Annotated[str, Field(pattern=rf"^{_NAME}(\.{_NAME}){{0,2}}$")]
WordingName = Annotated[str, Field(pattern=rf"^{_NAME}(\.{_NAME})?$")]


class ProposeDeclaration(Declaration):
    """Who words instructions anew, and how many wordings are asked for."""

    model: Text
    count: Annotated[int, Field(ge=1, le=50)] = 6


class OptimizeDeclaration(Declaration):
    """What `align-dsl optimize` tunes, and on which cases."""

    decider: Name
    method: Literal["search", "bootstrap", "mipro", "gepa"] = Field(
        "search", description="the search of align-dsl, or an optimizer of DSPy"
    )
    space: dict[
        SettingName,
        Annotated[
            Annotated[list[Any], Tag("<list>"), Field(min_length=1)]
            | Annotated[RangeDeclaration, Tag("<mapping>")],
            _Shape,
        ],
    ] = Field({}, description="settings to vary, and no others: lists or ranges of values")
    variants: dict[WordingName, Annotated[list[Text], Field(min_length=1)]] = Field(
        {},
        description="STEP: other wordings of its instructions; STEP.ATTRIBUTE: of a definition",
    )
    propose: ProposeDeclaration | None = Field(
        None, description="a model that writes further wordings"
    )
    objectives: list[Literal["accuracy", "calls", "tokens"]] = Field(
        ["accuracy"], min_length=1, description="what the search weighs against each other"
    )
    at_most: dict[Literal["calls", "tokens"], Annotated[float, Field(gt=0)]] = Field(
        {}, description="what a decision may cost on average"
    )
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.05, description="accuracy that may be lost for a lower cost; 0.05 is 5 points"
    )
    sampler: Text = Field("tpe", description="tpe, random, or another sampler of Optuna")
    trials: Annotated[int, Field(ge=1, le=100_000)] = 60
    cases: Part = Field("train", description="the cases that trials see")
    accept: Part = Field("test", description="the cases that the winner is judged on, once")
    seed: Seed = 0


class ProgramFile(Declaration):
    """What to run: `programs/NAME.yaml`."""

    version: Version
    program: Name
    about: Text
    extends: LibraryName | None = None
    attributes: Annotated[
        Annotated[Text, Tag("<text>")]
        | Annotated[list[Text], Tag("<list>"), Field(min_length=1)]
        | Annotated[dict[Name, AttributeDeclaration], Tag("<mapping>"), Field(min_length=1)],
        _Shape,
    ]
    data: DataDeclaration
    targets: Annotated[
        Annotated[TargetDeclaration, Tag("<mapping>")]
        | Annotated[list[TargetDeclaration], Tag("<list>"), Field(min_length=1)],
        _Shape,
    ]
    deciders: dict[Name, DeciderDeclaration] = Field(min_length=1)
    model: Annotated[
        Annotated[Text, Tag("<text>")] | Annotated[list[Text], Tag("<list>"), Field(min_length=1)],
        _Shape,
    ] = "embedded"
    models: dict[Name, ModelDeclaration] = {}
    metrics: list[Name] = Field(["accuracy"], min_length=1)
    optimize: OptimizeDeclaration | None = None
    seed: Seed = 0


KINDS: dict[str, type[Declaration]] = {
    "program": ProgramFile,
    "attributes": AttributesFile,
    "decider": DeciderFile,
}

D = TypeVar("D", bound=Declaration)


def read(kind: type[D], source: Source) -> D:
    """Validate a whole file, turning every complaint of pydantic into a diagnostic in place."""
    return read_part(kind, source, (), source.data)


def read_part(kind: type[D], source: Source, below: Path, data: Any) -> D:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        wrong = [diagnose(kind, source, below, e) for e in error.errors(include_url=False)]
        raise CompileError(wrong, source.texts) from None


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of one kind of file, for editors."""
    schema = KINDS[kind].model_json_schema(by_alias=True)
    _close_patterns(schema)
    if "extends" in schema["properties"]:
        _allow_to_extend(schema, [k for k in schema["required"] if k in OWN])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _allow_to_extend(schema: dict[str, Any], own: list[str]) -> None:
    # the loader looks at a file together with all that it extends; an editor sees the file alone
    rest = [key for key in schema["required"] if key not in own]
    schema["required"] = own
    schema["if"] = {"properties": {"extends": {"type": "string"}}, "required": ["extends"]}
    schema["else"] = {"required": rest}


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
