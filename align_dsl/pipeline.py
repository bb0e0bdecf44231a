"""The table of contents of the whole product: each stage is one call, none calls an earlier one.

compile   YAML -> Program                         pure
load      Program -> its cases, and do they fit   reads data
plan_run  Program x cases x targets -> Plan       pure
run       Plan -> answers -> decisions -> record  the only one that calls a model
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_dsl import __version__, datasets
from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.demos import filled
from align_dsl.engine.fit import fit
from align_dsl.engine.plan import Plan, plan
from align_dsl.engine.split import part
from align_dsl.errors import (
    CompileError,
    Diagnostic,
    Findings,
    PlanError,
    Span,
    nearest,
    picture,
)
from align_dsl.language.attributes import read_attributes
from align_dsl.language.deciders import read_decider
from align_dsl.language.extend import extend
from align_dsl.language.files import instead, mentions_us, not_ours, unusable, yaml_below
from align_dsl.language.kind import expect_program, is_foreign, kind_of
from align_dsl.language.library import Library, shown
from align_dsl.language.override import Override, override, set_value
from align_dsl.language.program import Model, Place, Program
from align_dsl.language.resolve import Checked, resolve
from align_dsl.language.source import Path as Keys
from align_dsl.language.source import Source, read_source
from align_dsl.types import Attribute, Case, digest

if TYPE_CHECKING:
    from align_dsl.backends import Backend
    from align_dsl.engine.execute import Gone, Progress, Stop
    from align_dsl.records.record import Answer, Cost, RunRecord
    from align_dsl.records.store import Store


@dataclass(frozen=True, slots=True)
class Changes:
    """What a command line changes in a program before it is compiled."""

    sets: tuple[str, ...] = ()
    model: str | None = None
    data: Path | None = None
    format: str | None = None
    seed: int | None = None
    others: tuple[Override, ...] = ()  # of options that only some commands have

    def plain(self) -> dict[str, Any]:
        """By option name, as a command line would say it again."""
        said = {
            "data": str(self.data) if self.data else None,
            "format": self.format,
            "model": self.model,
            "seed": self.seed,
            "set": [*self.sets, *(one.plain for one in self.others)],
        }
        return {k: v for k, v in said.items() if v not in (None, [])}

    def apply(self, source: Source) -> Source:
        if self.data is not None:
            place = {"format": self.format or _guess(self.data), "path": str(self.data.absolute())}
            source = override(source, f"--data {self.data}", ("data",), place)
        if self.format is not None:
            source = override(source, f"--format {self.format}", ("data", "format"), self.format)
        if self.model is not None:
            source = override(source, f"--model {self.model}", ("model",), self.model)
        if self.seed is not None:
            source = override(source, f"--seed {self.seed}", ("seed",), self.seed)
        for written in self.sets:
            source = set_value(source, written)
        for one in self.others:
            source = override(source, one.option, one.path, one.value)
        return source


def _guess(path: Path) -> str:
    return "jsonl" if path.suffix == ".jsonl" or any(path.glob("*.jsonl")) else "align_system"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked program with its cases and the pool its exemplars come from."""

    checked: Checked
    cases: tuple[Case, ...]
    pool: tuple[Case, ...]
    warnings: tuple[Diagnostic, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)  # what the command line changed

    @property
    def program(self) -> Program:
        return self.checked.program


def program_file(program: Path) -> Path:
    """The file that is meant; a bare name may be that of a shipped program."""
    library = Library.beside(Path("programs") / program)
    bare = len(program.parts) == 1 and not program.exists()
    if bare and program.suffix == ".yaml" and program.stem in library.names("programs"):
        said = f"there is no file `{program}` here"
        raise PlanError(f"{said}\n  = a program that is found by name: {program.stem}")
    if not bare or program.suffix:
        return program
    try:
        return library.path("programs", program.name)
    except CompileError as error:
        first = error.diagnostics[0]
        raise PlanError(f"{first.message}\n  = {first.hint}") from None


def compile(file: Path, changes: Changes | None = None) -> Checked:
    """YAML -> Program. Reads no data."""
    library = Library.beside(file)
    source = read_source(file, shown(file))
    expect_program(source, library)
    if changes and changes != Changes():
        source = extend(source, lambda name, _: library.source("programs", name))
        source = changes.apply(source)
    return resolve(source, library)


def load(file: Path, changes: Changes | None = None) -> Loaded:
    """Compile a program, read its cases, and see that the two fit."""
    checked = compile(file, changes)
    program = checked.program
    attributes = {a.name: a for a in program.attributes}
    cases = _cases(checked, program.data.place, attributes, ("data", "path"))
    pool = cases
    if program.data.exemplars:
        pool = _cases(checked, program.data.exemplars, attributes, ("data", "exemplars", "path"))
    elif program.data.cases != "all":  # what is decided, or kept for later, teaches nobody
        pool = part(cases, program.data.split, "train")
    # other data than the program was written for may be labelled on fewer attributes
    narrow = changes is not None and changes.data is not None
    found = fit(checked, cases, pool, narrow=narrow)
    found.stop_if_wrong()
    if narrow:
        checked = _narrowed(checked, cases)
    known = (*pool, *cases) if program.data.exemplars else cases
    checked = replace(checked, program=filled(checked.program, known))
    warnings = (*checked.warnings, *found.warnings)
    return Loaded(checked, cases, pool, warnings, changes.plain() if changes else {})


def _narrowed(checked: Checked, cases: Sequence[Case]) -> Checked:
    labelled = {name for case in cases for name in case.attributes()}
    kept = tuple(t for t in checked.program.targets if t.values.keys() <= labelled)
    program = checked.program.model_copy(update={"targets": kept})
    return Checked(program, checked.source, checked.warnings, checked.origins, checked.texts)


def _cases(
    checked: Checked, place: Place, attributes: Mapping[str, Attribute], at: Keys
) -> tuple[Case, ...]:
    """The cases of a place. Complaints that name no line stand where the path is written."""
    span, path = checked.source.at(at), Path(place.path)
    if problem := unusable(path):
        hint = "give the path of a file or a folder"
        if checked.source.texts.get(span.file):  # else it is from the command line
            hint += ", as seen from this file"
        hint = instead(Path(shown(path))) or hint
        raise CompileError([Diagnostic(span, f"{shown(path)}: {problem}", hint)], checked.texts)
    try:
        return datasets.load(place.format, path, attributes)
    except CompileError as error:
        if error.texts:
            raise
        wrong = [
            replace(
                d,
                span=span,
                message=f"{shown(Path(d.span.file))}: {d.message}",
                hint=d.hint or "correct the data file",
            )
            for d in error.diagnostics
        ]
        raise CompileError(wrong, checked.texts) from None
    except (OSError, RecursionError) as error:
        said = f"{shown(path)}: cannot be read: {getattr(error, 'strerror', None) or error}"
        raise CompileError([Diagnostic(span, said, "check the file")], checked.texts) from None


def check(paths: Sequence[Path]) -> Findings:
    """Every mistake and warning of the given files and folders, as far as each can be read."""
    found = Findings()
    for path in paths:
        if not os.path.isdir(path):
            _check(path, found)
            continue
        ours = [below for below in yaml_below(path) if _check(below, found, in_folder=True)]
        if not ours:
            said = "there is nothing to check in this folder"
            found.error(Span(shown(path)), said, not_ours(path))
    return found


def _check(path: Path, found: Findings, in_folder: bool = False) -> bool:
    """Whether it is a file of ours. What merely lies in the same folder may be anything."""
    try:
        source = read_source(path, shown(path))
    except CompileError as error:
        if in_folder and not mentions_us(path):
            return False
        found.add(error)
        return True
    if in_folder and is_foreign(source):
        return False
    found.texts.update(source.texts)
    try:
        kind = kind_of(source)
        if kind == "program":
            loaded = load(path)
            found.diagnostics += loaded.warnings
            found.texts.update(loaded.checked.texts)
        elif kind == "attributes":
            read_attributes(source, found)
            _is_called(source, "set", path, found)
        else:
            read_decider(source, Library.beside(path), found)
            _is_called(source, "decider", path, found)
    except CompileError as error:
        found.add(error)
    return True


def _is_called(source: Source, key: str, path: Path, found: Findings) -> None:
    """What is looked up by name is found by the name of its file: the two must be one."""
    name = source.data.get(key)
    looked_up = path.absolute().parent.name == {"set": "attributes", "decider": "deciders"}[key]
    if looked_up and isinstance(name, str) and name != path.stem:
        said = f"`{name}` stands in {path.name}, so nobody would find it"
        found.error(source.at((key,)), said, f"write `{key}: {path.stem}`, or rename the file")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a program a run is about. Part of what a run is identified by."""

    limit: int | None = None
    only: tuple[str, ...] = ()
    control: bool = False

    def plain(self) -> dict[str, Any]:
        said = {"limit": self.limit, "only": list(self.only), "control": self.control}
        return {k: v for k, v in said.items() if v}


def select(loaded: Loaded, selection: Selection) -> Loaded:
    """The same, with fewer deciders and cases. The pool of exemplars stays whole."""
    program = loaded.program
    for name in selection.only:
        known = [d.name for d in program.deciders]
        if name not in known:
            wrong = f"no decider named `{name}` in this program"
            raise PlanError(
                picture(Diagnostic(Span(f"--only {name}"), wrong, nearest(name, known)), "")
            )
    deciders = tuple(d for d in program.deciders if not selection.only or d.name in selection.only)
    cases = part(loaded.cases, program.data.split, program.data.cases)[: selection.limit]
    if not cases:
        raise PlanError("no cases are left to decide; raise `--limit`")
    program = program.model_copy(update={"deciders": deciders})
    checked = Checked(
        program,
        loaded.checked.source,
        loaded.checked.warnings,
        loaded.checked.origins,
        loaded.checked.texts,
    )
    return Loaded(checked, cases, loaded.pool, loaded.warnings, loaded.changes)


def prompts_version() -> str:
    """Changes with every file that has a say in what is sent to a model."""
    package = Path(__file__).parent
    parts = ("engine/prompt", "engine/adapter", "engine/expected", "engine/grammar")
    files = (*(f"{part}.py" for part in parts), "language/wording.py")
    return hashlib.sha256(b"".join((package / f).read_bytes() for f in files)).hexdigest()[:12]


def open_backends(program: Program) -> dict[str, Backend]:
    from align_dsl.backends import open_backend

    used = {model.name: model for _, model in program.pairs()}
    return {name: open_backend(model) for name, model in used.items()}


def plan_run(loaded: Loaded, backends: Mapping[str, Backend], control: bool = False) -> Plan:
    return plan(
        loaded.program,
        loaded.cases,
        loaded.program.targets,
        datasets.pool_of(loaded.pool),
        fingerprints={name: b.fingerprint() for name, b in backends.items()},
        prompts=prompts_version(),
        control=control,
    )


@dataclass(slots=True)
class Outcome:
    """A run as it ended: its record, and what this very execution cost."""

    record: RunRecord
    spent: Cost
    notes: Mapping[str, str] = field(default_factory=dict)  # model -> what tables must say of it
    reasons: Mapping[str, int] = field(default_factory=dict)  # why decisions failed
    gone: Gone | None = None  # why no more could be asked, where that ended it early


def run(
    loaded: Loaded,
    store: Store,
    selection: Selection | None = None,
    *,
    budget: Budget = UNBOUNDED,
    retry_failed: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
    started: Callable[[RunRecord, Plan], None] = lambda record, plan: None,
) -> Outcome:
    """Decide every question of a program, hold the decisions against the labels, write it down.

    What has come of a run that ends early is judged and written down all the same.
    """
    from align_dsl.engine.decide import decide
    from align_dsl.engine.execute import Gone, Stop, execute
    from align_dsl.records.judge import judge
    from align_dsl.records.owner import owner
    from align_dsl.records.record import Cost, RunRecord

    selection = selection or Selection()
    stop = stop if stop is not None else Stop()
    loaded = select(loaded, selection)
    program = loaded.program
    backends = open_backends(program)
    try:
        todo = plan_run(loaded, backends, selection.control)
        name = run_id(loaded, selection, todo, backends)
        before = store.record(name)
        lost = before.lost if before else Cost()
        if retry_failed:
            lost += store.forget_failures(todo.model_jobs)
        record = RunRecord(
            id=name,
            program=program.name,
            program_digest=program.digest(),
            source=loaded.checked.source.file,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            status="running",
            seed=program.seed,
            selection={**loaded.changes, **selection.plain()},
            versions=_versions(),
            models={name: b.fingerprint() for name, b in backends.items()},
            deciders=tuple(d.name for d in program.deciders),
            targets=program.targets,
            jobs=len(todo.model_jobs),
            owner=owner(),
            lost=lost,
        )
        if len(store.known(todo.model_jobs)) < len(todo.model_jobs):
            for backend in backends.values():
                backend.probe()
        store.start(record, program.model_dump(mode="json"), loaded.cases)
        started(record, todo)
        gone = None
        try:
            answered = execute(todo, backends, store, progress=progress, budget=budget, stop=stop)
        except Gone as error:
            answered, gone = error.answered, error
    finally:
        for backend in backends.values():
            backend.close()
    judged = [
        judge(d, q.case, q.judged_by)
        for q, d in zip(
            todo.questions, decide(todo, answered.answers, seed=program.seed), strict=True
        )
        if not answered.lacks(q)
    ]
    from align_dsl.engine.account import account
    from align_dsl.records.table import reasons_of

    outcome = account(record, todo, judged, answered, stop, loaded.cases, program.metrics)
    is_new = retry_failed or bool(answered.asked)
    finished = store.finish(outcome.record, judged, replace=is_new)
    others = _answered_by(todo, answered.answers)
    notes = {n: others.get(n, b.note) for n, b in backends.items()}
    return Outcome(finished, outcome.spent, notes, reasons_of(judged), gone)


def _answered_by(todo: Plan, answers: Mapping[str, Answer]) -> dict[str, str]:
    """For each model whose server says that another has answered: which."""
    others: dict[Model, set[str]] = {}
    for key in todo.model_jobs:
        if key in answers and (by := answers[key].notes.get("answered_by")):
            others.setdefault(todo.jobs[key].model, set()).add(by)
    return {
        m.name: f"{m.name}: {m.address} was asked, and {', '.join(sorted(by))} says it answered"
        for m, by in others.items()
    }


def run_id(
    loaded: Loaded, selection: Selection, todo: Plan, backends: Mapping[str, Backend]
) -> str:
    """Made of what is asked: the same question twice is the same run."""
    said = [
        loaded.program.digest(),
        digest("".join(sorted(todo.jobs))),
        digest("".join(c.canonical() for c in loaded.cases)),
        repr(selection.plain()),
        repr(sorted((n, b.fingerprint()) for n, b in backends.items())),
    ]
    return f"{loaded.program.name}-{digest(' '.join(said))[:10]}"


def _versions() -> dict[str, str]:
    found = {"align-dsl": __version__, "python": platform.python_version()}
    for package in ("dspy", "litellm", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
