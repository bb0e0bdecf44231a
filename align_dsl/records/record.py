"""What is written down of a run. A RunRecord is read, never changed, once the run is over."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from align_dsl.records.owner import is_dead
from align_dsl.types import Case, Decision, Failure, Target, Value

FORMAT = 1


class Cost(Value):
    calls: int = 0
    cached: int = 0  # jobs whose answer was known before
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return self._each(other, 1)

    def __sub__(self, other: Cost) -> Cost:
        return self._each(other, -1)

    def _each(self, other: Cost, sign: int) -> Cost:
        mine, theirs = self.model_dump(), other.model_dump()
        return Cost(**{name: round(mine[name] + sign * theirs[name], 3) for name in mine})


class Answer(Value):
    """What one job brought back: the algorithm's output, or why there is none.

    `output` speaks of choices by the letter they were shown under, so that two scenarios with the
    same words share it whatever their ids are.
    """

    key: str
    output: Any = None
    failure: Failure | None = None
    raw: str = ""  # the last text the model sent
    calls: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    constrained: str = ""  # how the server was held to the schema
    notes: dict[str, Any] = Field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.failure is None

    @property
    def cost(self) -> Cost:
        return Cost(
            calls=self.calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            seconds=self.seconds,
        )


class Judgement(Value):
    """A decision held against its case's labels."""

    decision: Decision
    index: int | None  # position of the choice in the scenario as given
    correct: bool | None  # None: not decided, or the labels cannot tell
    left_out: bool  # the labels cannot tell right from wrong (all choices tie, or some lack labels)
    right: int  # how many choices would be correct
    choices: int
    group: str  # cases of one group are resampled together
    target: str  # what it is judged by
    control: bool = False  # decided for another target on purpose, to see what alignment adds


class Result(Value):
    """One cell of the table: a decider on a model, for one target or several of one attribute."""

    decider: str
    model: str
    target: str  # the target's name; `both` or `all` where several are taken together
    attribute: str  # the attribute's name; `all` for the mean over attributes
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    left_out: int
    failed: int
    chance: float | None
    trivial: float | None = None  # the best of: always first, last, longest, shortest
    trivial_name: str = ""
    calls: int = 0
    tokens: int = 0
    control: float | None = None  # accuracy when aligned to another attribute or group instead


class RunRecord(Value):
    """A run from start to end. Its id is made of what was asked, so asking again finds it."""

    format: int = FORMAT
    id: str
    program: str  # name
    program_digest: str  # of the resolved program
    source: str  # the program file, as it was named
    created: str  # UTC, ISO 8601
    status: Literal["running", "ok", "interrupted", "failed"]
    seed: int
    selection: dict[str, Any] = Field(default_factory=dict)  # --limit, --only, --set and so on
    versions: dict[str, str] = Field(default_factory=dict)
    models: dict[str, str] = Field(default_factory=dict)  # name -> fingerprint
    deciders: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    jobs: int = 0
    owner: str = ""  # who is at it, while it is running
    counts: dict[str, int] = Field(default_factory=dict)  # decisions by status
    results: tuple[Result, ...] = ()
    cost: Cost = Cost()  # of all its answers, and what is lost
    lost: Cost = Cost()  # what went for no answer that is kept, as when a server was gone

    @property
    def stands(self) -> str:
        """How it stands: one whose process is no more has `stopped`, and nobody wrote it down."""
        if self.status == "running" and is_dead(self.owner):
            return "stopped"
        return self.status


class Recorded(Value):
    """A whole run as it comes out of the store."""

    record: RunRecord
    program: dict[str, Any]  # the resolved program, canonical
    cases: tuple[Case, ...]
    judgements: tuple[Judgement, ...]
