"""What is asked of `optimize` -> the program, its space, and the exams on train and test cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from align_dsl import pipeline
from align_dsl.backends import Backend, open_backend
from align_dsl.engine.bill import calls_of
from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.split import part
from align_dsl.errors import PlanError, counted, visible
from align_dsl.language.library import Library
from align_dsl.language.override import Override
from align_dsl.language.program import Model, Optimize
from align_dsl.optimize.aims import Aims, aims_of
from align_dsl.optimize.blocks import deal
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.leaks import nothing_leaks
from align_dsl.optimize.search import BATCH
from align_dsl.optimize.space import Config, Space, model_of, space_of
from align_dsl.pipeline import Changes, Loaded
from align_dsl.records.stats import minimum_detectable_difference
from align_dsl.records.store import Store
from align_dsl.types import Case, digest

DEALT = 2  # counts up when cases are dealt otherwise, and marks of old studies mean others
BLOCKS = 5  # parts of the train cases; each is answered with exemplars from the others
HALVES = Override(
    "the split in halves, where a program has none", ("data", "split"), {"train": 0.5, "test": 0.5}
)
DISAGREE = 0.3  # share of questions on which two configurations typically differ


@dataclass(frozen=True, slots=True)
class Task:
    """What somebody asks for. Other processes can be handed it."""

    program: Path
    changes: Changes = field(default_factory=Changes)
    decider: str | None = None
    method: str | None = None
    store: Path = Path(".align/align.db")
    storage: str | None = None  # the URL of a database, or the journal beside the store
    trials: int | None = None
    sampler: str | None = None
    budget: Budget = UNBOUNDED  # of the study, all sessions together
    workers: int = 1
    retry_failed: bool = False

    @property
    def where(self) -> Path | str:
        return self.storage or self.store.parent / "study.log"


@dataclass(frozen=True, slots=True)
class Ready:
    """A task with everything open that it takes."""

    task: Task
    loaded: Loaded
    optimize: Optimize
    space: Space
    train: Exam
    test: Exam
    backends: Mapping[str, Backend]
    warnings: tuple[str, ...]
    wordings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of a model: reword.py
    named: str = ""  # as the study was before it had them

    @property
    def study(self) -> str:
        """The study's name: made of all that has a say in what its trials come to."""
        if self.named:
            return self.named
        program = self.loaded.program.model_copy(update={"optimize": None})
        said = [
            program.digest(),
            self.space.decider.name,
            repr(self.space.dimensions),
            _content([c for b in self.train.blocks for c in b]),
            _content(self.train.pool or ()),
            f"{DEALT}/{self.optimize.seed}",
            self.sampler,
            *(() if self.aims == Aims() else [repr(self.aims)]),
            *(() if self.searches else [self.optimize.method]),
            *(() if self.searches and not self.optimize.propose else [repr(self.optimize.propose)]),
            *(b.fingerprint() for b in self.backends.values()),
            pipeline.prompts_version(),
        ]
        return f"{program.name}-{self.space.decider.name}-{digest(' '.join(said))[:8]}"

    @property
    def model(self) -> Model:
        """What the decider asks: it is tuned for one."""
        (name,) = self.backends
        return self.loaded.program.model(name)

    @property
    def is_free(self) -> bool:
        """Whether answers cost nothing."""
        return self.model.backend == "embedded"

    @property
    def trials(self) -> int:
        return self.task.trials or self.optimize.trials

    @property
    def aims(self) -> Aims:
        return aims_of(self.loaded.program)

    @property
    def searches(self) -> bool:
        """Whether align-dsl itself looks for what is better, and not an optimizer of DSPy."""
        return self.optimize.method == "search"

    @property
    def sampler(self) -> str:
        if not self.searches:
            return f"{self.optimize.method} of DSPy"
        return self.task.sampler or self.optimize.sampler

    @property
    def split(self) -> str:
        """The test cases, by content: however often they are looked at, they are the same."""
        return _content([c for b in self.test.blocks for c in b])

    def close(self) -> None:
        for backend in self.backends.values():
            backend.close()


def _content(cases: Sequence[Case]) -> str:
    return digest("".join(sorted(c.canonical() for c in cases)))


def ready(task: Task, store: Store) -> Ready:
    """Compile, split and look for what would make the result worthless. Close it after use."""
    loaded = pipeline.load(task.program, _complete(task))
    program = loaded.program
    optimize = program.optimize
    assert optimize is not None
    train = part(loaded.cases, program.data.split, optimize.cases)
    test = part(loaded.cases, program.data.split, optimize.accept)
    own = loaded.pool if program.data.exemplars else None
    nothing_leaks(loaded, train, test, own)
    library = Library.beside(task.program)
    if optimize.method == "search":
        space = space_of(loaded.checked, library, _exemplars(own if own is not None else train))
    else:  # what is set is what DSPy comes up with
        tuned = next(d for d in program.deciders if d.name == optimize.decider)
        space = Space(loaded.checked, library, tuned, ())
    model = model_of(program, space.decider)
    backends = {model.name: open_backend(model)}
    known = (*(own or ()), *train)
    made = Ready(
        task=task,
        loaded=loaded,
        optimize=optimize,
        space=space,
        train=Exam(space, deal(train, BLOCKS, optimize.seed), store, backends, own, known),
        test=Exam(space, (test,), store, backends, own if own is not None else train, known),
        backends=backends,
        warnings=(),
    )
    if not made.train.asked or not made.test.asked:
        made.close()
        raise PlanError("error: the labels can tell right from wrong in none of the cases")
    return replace(made, warnings=_doubts(made))


def _complete(task: Task) -> Changes:
    """What a program leaves unsaid about optimizing, said by the options or by default."""
    changes = task.changes
    program = pipeline.compile(task.program, changes).program
    said: list[Override] = []
    if program.data.split is None:
        said.append(HALVES)
    if program.optimize is None and task.decider is None:
        names = ", ".join(d.name for d in program.deciders)
        raise PlanError(
            f"error: {visible(str(task.program))} does not say what to optimize\n"
            f"  = name one of its deciders: --decider NAME ({names})"
        )
    if task.decider is not None:
        option = f"--decider {task.decider}"
        said.append(Override(option, ("optimize", "decider"), task.decider))
    if task.method is not None:
        option = f"--method {task.method}"
        said.append(Override(option, ("optimize", "method"), task.method))
    return replace(changes, others=tuple(said))


def _exemplars(cases: Sequence[Case]) -> int:
    """How many there are to show, of the attribute that has most."""
    names = {name for c in cases for name in c.attributes()}
    return max((sum(name in c.attributes() for c in cases) for name in names), default=0)


def _doubts(made: Ready) -> tuple[str, ...]:
    """What the data cannot support, said before anything is spent."""
    doubts = []
    n, dimensions = len({a.group for a in made.train.asked}), len(made.space.dimensions)
    m = len({a.group for a in made.test.asked})
    settings = f", {counted(dimensions, 'setting')}" if dimensions else ""
    for where, groups in (("train", n), ("test", m)):
        least = minimum_detectable_difference(groups, DISAGREE)
        if least is None or least > 0.1:
            said = (
                "any difference" if least is None else f"differences under {least * 100:.0f} points"
            )
            doubts.append(
                f"{counted(groups, f'independent {where} case')}{settings}: {said} cannot be told"
                " from noise"
            )
    if made.searches and made.task.workers > BATCH:
        doubts.append(
            f"{made.task.workers} workers: {BATCH} configurations are tried at a time, so more than"
            " that have nothing to do"
        )
    return tuple(doubts)


@dataclass(frozen=True, slots=True)
class Price:
    """Calls, were nothing known yet: of a trial from the least to the most, and of the verdict."""

    least: int
    most: int
    typical: float  # the mean over what was drawn
    default: int
    verdict: int


def price(made: Ready, samples: Sequence[Config]) -> Price:
    """What configurations such as these would need."""
    default = _calls(made.train, made.space.default)
    sizes = [_calls(made.train, c) for c in samples] or [default]
    verdict = _calls(made.test, made.space.default)
    most = max([verdict, *(_calls(made.test, c) for c in samples)])
    return Price(
        least=min(default, *sizes),
        most=max(default, *sizes),
        typical=sum(sizes) / len(sizes),
        default=default,
        verdict=verdict + most,
    )


def _calls(exam: Exam, config: Config) -> int:
    plans = (exam.plan(config, block) for block in range(len(exam.blocks)))
    return sum(calls_of(plan.jobs[key]) for plan in plans for key in plan.model_jobs)


def facts(made: Ready, warm: Sequence[Config]) -> dict[str, Any]:
    """What is written down of a study when it begins."""
    import datetime

    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "program": made.loaded.program.name,
        "source": made.loaded.checked.source.file,
        "decider": made.space.decider.name,
        "model": made.model.name,
        "digest": made.loaded.program.digest(),
        "train": _content([c for b in made.train.blocks for c in b]),
        "test": made.split,
        "seed": made.optimize.seed,
        "method": made.optimize.method,
        "sampler": made.sampler,
        "dimensions": {d.name: str(d) for d in made.space.dimensions},
        "default": made.space.default,
        "groups": [a.group for a in made.train.asked],
        "weights": [round(w, 9) for w in made.train.weights],
        "attributes": [a.attribute for a in made.train.asked],
        "objectives": list(made.aims.objectives),
        "at_most": dict(made.aims.at_most),
        "warm": list(warm),
        **({"wordings": {k: list(v) for k, v in made.wordings.items()}} if made.wordings else {}),
    }
