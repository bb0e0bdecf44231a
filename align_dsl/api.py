"""What Python programs use: a program file -> an object that decides, runs and shows.

mta = align_dsl.load("programs/mta.yaml")
mta["regression"](scenario="...", choices=["...", "..."], target={"fairness": "high"})
mta.run(limit=20).to_pandas()
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_dsl import pipeline
from align_dsl.datasets import pool_of
from align_dsl.engine.plan import Plan, concerns, plan
from align_dsl.engine.split import part
from align_dsl.errors import Diagnostic, PlanError, nearest, visible
from align_dsl.language import program as ir
from align_dsl.language.attributes import by_any_name
from align_dsl.language.targets import ENDS
from align_dsl.pipeline import Changes, Loaded, Outcome, Selection
from align_dsl.records.judge import right_choices
from align_dsl.records.record import Answer, Judgement, Result, RunRecord
from align_dsl.types import Case, Choice, Decision, Pool, Scenario, Target, digest

if TYPE_CHECKING:
    from align_dsl.backends import Backend
    from align_dsl.engine.execute import Progress
    from align_dsl.engine.module import DeciderModule

Choices = Sequence[str] | Mapping[str, str]
Aim = Mapping[str, float | str] | Target | str


def load(
    path_or_name: str | Path,
    *,
    model: str | None = None,
    data: str | Path | None = None,
    format: str | None = None,
    seed: int | None = None,
    sets: Sequence[str] = (),
) -> Compiled:
    """Compile a program and read its cases. A bare name may be that of a shipped program.

    The other arguments change the program as the options of `align-dsl run` do; `sets` are
    `key=value` as after `--set`. Raises CompileError with every mistake there is.
    """
    changes = Changes(tuple(sets), model, Path(data) if data is not None else None, format, seed)
    return Compiled(pipeline.program_file(Path(path_or_name)), changes)


class Compiled(Mapping[str, "Decider"]):
    """A compiled program with its cases: a mapping of its deciders."""

    def __init__(self, file: Path, changes: Changes) -> None:
        self.file, self._changes = file, changes
        self._loaded: Loaded = pipeline.load(file, changes)
        self._backends: dict[str, tuple[ir.Model, Backend]] = {}
        self._deciders: dict[str, Decider] = {}

    @property
    def program(self) -> ir.Program:
        """The program with every name resolved. Frozen."""
        return self._loaded.program

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        return self._loaded.warnings

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases that a run decides."""
        data = self.program.data
        return part(self._loaded.cases, data.split, data.cases)

    def __getitem__(self, name: str) -> Decider:
        names = [d.name for d in self.program.deciders]
        if name not in names:
            raise KeyError(f"no decider named `{name}`; {nearest(str(name), names)}")
        if name not in self._deciders:
            found = next(d for d in self.program.deciders if d.name == name)
            self._deciders[name] = Decider(self, found)
        return self._deciders[name]

    def __iter__(self) -> Iterator[str]:
        return iter([d.name for d in self.program.deciders])

    def __len__(self) -> int:
        return len(self.program.deciders)

    def __contains__(self, name: object) -> bool:
        return any(d.name == name for d in self.program.deciders)

    def __repr__(self) -> str:
        return f"<program {self.program.name}: {', '.join(self)}>"

    def run(
        self,
        limit: int | None = None,
        only: Sequence[str] = (),
        budget: int | None = None,
        store: str | Path = ".align/align.db",
        control: bool = False,
        *,
        retry_failed: bool = False,
        progress: Progress | None = None,
    ) -> Run:
        """What `align-dsl run` does, on the same store: what is known is not asked again.

        A run that its budget ends is `interrupted`, not an error.
        """
        from align_dsl.records.store import Store

        only = (only,) if isinstance(only, str) else tuple(only)
        selection = Selection(limit, only, control)
        with Store.open(Path(store)) as opened:
            outcome = pipeline.run(
                self._loaded,
                opened,
                selection,
                budget=budget,
                retry_failed=retry_failed,
                progress=progress,
            )
        return Run(outcome, Path(store).absolute())

    def examples(
        self, cases: Iterable[Case] | None = None, targets: Iterable[Target] | None = None
    ) -> list[Any]:
        """Training examples for DSPy optimizers: a `dspy.Example` per case and target.

        The labels are not among the inputs: they become the answers of worked examples.
        """
        import dspy

        made = []
        for case in self.cases if cases is None else cases:
            for target in self.program.targets if targets is None else targets:
                right = right_choices(case, target) if concerns(target, case) else None
                if right is None:
                    continue
                one = dspy.Example(
                    scenario=case.scenario.text,
                    choices={c.id: c.text for c in case.scenario.choices},
                    target=target if target.weights else dict(target.values),
                    labelled=case.labels,  # `labels` is a method of dspy.Example
                    choice=min(right),
                    right=sorted(right),
                )
                made.append(one.with_inputs("scenario", "choices", "target"))
        return made

    def close(self) -> None:
        """Let go of what deciders have opened to talk to models."""
        for _, backend in self._backends.values():
            backend.close()
        self._backends.clear()

    @cached_property
    def _pool(self) -> Pool:
        return pool_of(self._loaded.pool)

    @cached_property
    def _attribute_names(self) -> dict[str, str]:
        return by_any_name({a.name: a for a in self.program.attributes})

    def _model(self, decider: ir.Decider, name: str | None) -> tuple[ir.Model, Backend]:
        """A model by name, opened once."""
        from align_dsl.backends import open_backend

        if name is None:
            name = decider.model or self.program.run_on[0]
        if name not in self._backends:
            known = {m.name: m for m in self.program.models}
            if name not in known:  # not in the program: written as after `--model`
                changes = Changes(model=name, sets=self._changes.sets)
                known = {m.name: m for m in pipeline.compile(self.file, changes).program.models}
            self._backends[name] = known[name], open_backend(known[name])
        return self._backends[name]

    def _target(self, aim: Aim | None) -> Target:
        match aim:
            case None:
                return Target(name="none", values={})
            case Target():
                self._names(aim.values)
                return aim
            case str():
                by_name = {t.name: t for t in self.program.targets}
                if aim not in by_name:
                    raise PlanError(f"no target named `{aim}`; {nearest(aim, by_name)}")
                return by_name[aim]
        names = self._names(aim)
        values = {names[n]: _stand(n, v) for n, v in aim.items()}
        known = next(
            (t for t in self.program.targets if t.values == values and not t.weights), None
        )
        return known or Target(name=_name(values), values=values)

    def _names(self, written: Iterable[str]) -> dict[str, str]:
        """What is written -> the attribute that is meant. Raises PlanError where there is none."""
        found = {}
        for name in written:
            known = self._attribute_names
            meant = known.get(name) or known.get(name.lower())
            if meant is None:
                options = [a.name for a in self.program.attributes]
                raise PlanError(f"no attribute named `{name}`; {nearest(name, options)}")
            found[name] = meant
        return found


def _stand(name: str, value: float | str) -> float:
    if isinstance(value, str) and value in ENDS:
        return ENDS[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise PlanError(f"`{name}` is {value!r}; a target lies from 0 to 1, or is high or low")
    return float(value)


def _name(values: Mapping[str, float]) -> str:
    return " ".join(f"{n}={v:g}" for n, v in values.items())


class Decider:
    """A way of deciding, ready to be called. Remembers what its models have answered."""

    def __init__(self, compiled: Compiled, decider: ir.Decider) -> None:
        self._compiled, self.ir = compiled, decider
        self._answers = _Memory()

    @property
    def name(self) -> str:
        return self.ir.name

    @property
    def about(self) -> str:
        return self.ir.about

    def __repr__(self) -> str:
        return f"<decider {self.name}: {self.about}>"

    def __call__(
        self,
        scenario: str | Scenario,
        choices: Choices = (),
        target: Aim | None = None,
        *,
        model: str | None = None,
    ) -> Decision:
        """Decide one scenario. What cannot be answered is a failure in the Decision.

        Choices without ids get the letters A, B, C for ids, in the order given. Exemplars are
        those of the program's pool, and never the scenario itself.
        """
        from align_dsl.engine.decide import decide_one
        from align_dsl.engine.execute import execute

        todo = self._plan(scenario, choices, target, model)
        used, backend = self._compiled._model(self.ir, model)
        answered = execute(todo, {used.name: backend}, self._answers)
        return decide_one(todo.questions[0], answered.answers, seed=self._compiled.program.seed)

    @cached_property
    def module(self) -> DeciderModule:
        """The whole decider as one `dspy.Module`. Changing it leaves the decider as it is."""
        from align_dsl.engine.module import DeciderModule, Setting

        compiled = self._compiled
        used, backend = compiled._model(self.ir, None)
        attributes = {a.name: a for a in compiled.program.attributes}
        setting = Setting(
            decider=self.ir,
            model=used.name,
            attributes=attributes,
            backend=backend,
            seed=compiled.program.seed,
            plan=lambda s, c, t: self._plan(s, c, t, None),
        )
        return DeciderModule(setting)

    @property
    def lm(self) -> Any:
        """The LM of the decider's model, for DSPy tools that want one."""
        return self._compiled._model(self.ir, None)[1].lm

    def _plan(
        self, scenario: str | Scenario, choices: Choices, target: Aim | None, model: str | None
    ) -> Plan:
        """The jobs of one question."""
        compiled = self._compiled
        used, backend = compiled._model(self.ir, model)
        aim = compiled._target(target)
        self._can_decide(aim)
        program = compiled.program.model_copy(
            update={
                "deciders": (self.ir.model_copy(update={"model": used.name}),),
                "models": (used,),
            }
        )
        return plan(
            program,
            [Case(scenario=_scenario(scenario, choices))],
            [aim],
            compiled._pool,
            fingerprints={used.name: backend.fingerprint()},
            prompts=pipeline.prompts_version(),
        )

    def _can_decide(self, aim: Target) -> None:
        if any(step.algorithm.learns for step in self.ir.steps):
            raise PlanError(f"`{self.name}` decides from labels, and a bare scenario has none")
        asks = [o for step in self.ir.steps for o in (*step.each, *step.takes.values())]
        asks += self.ir.decide.takes.values()
        if not aim.values and {"target", "attribute", "attributes"} & set(asks):
            options = ", ".join(a.name for a in self._compiled.program.attributes)
            raise PlanError(f"`{self.name}` needs a target on one of: {options}")


def _scenario(scenario: str | Scenario, choices: Choices) -> Scenario:
    if isinstance(scenario, Scenario):
        return scenario
    from align_dsl.engine.module import choice_texts

    offered = tuple(Choice(id=i, text=t) for i, t in choice_texts(choices))
    if not offered:
        raise PlanError("the scenario offers no choices")
    return Scenario(id=digest(scenario)[:12], text=scenario, choices=offered)


class _Memory:
    """Answers for as long as a decider lives. Failures are forgotten: the next call asks again."""

    def __init__(self) -> None:
        self._known: dict[str, Answer] = {}
        self._lock = threading.Lock()

    def known(self, keys: Iterable[str]) -> dict[str, Answer]:
        return {k: self._known[k] for k in keys if k in self._known}

    def put(self, answers: Sequence[Answer]) -> None:
        with self._lock:
            self._known.update({a.key: a for a in answers if a.ok})

    def claim(self, keys: Iterable[str], owner: str, seconds: float) -> set[str]:
        return set(keys)

    def renew(self, owner: str, seconds: float) -> None: ...

    def release(self, owner: str) -> None: ...
    def bury(self, is_dead: object) -> None: ...


def correct(example: Any, prediction: Any, trace: Any = None) -> bool:
    """A metric for DSPy optimizers: whether the labels agree with the choice."""
    return prediction.choice in example.right


class Run:
    """A run as it ended. What it decided is read from the store when it is asked for."""

    def __init__(self, outcome: Outcome, store: Path) -> None:
        self.record: RunRecord = outcome.record
        self.spent = outcome.spent
        self.notes = dict(outcome.notes)
        self.store = store

    @property
    def results(self) -> tuple[Result, ...]:
        """The rows of the table."""
        return self.record.results

    @cached_property
    def decisions(self) -> tuple[Judgement, ...]:
        """Every decision, held against its case's labels; without those of the control."""
        from align_dsl.records.store import Store

        with Store.open(self.store) as opened:
            return tuple(opened.judgements(self.record.id, control=False))

    def to_pandas(self) -> Any:
        """One row per decision."""
        from align_dsl.records.export import COLUMNS

        try:
            import pandas
        except ImportError:
            said = "to_pandas() needs pandas, which align-dsl does not install: pip install pandas"
            raise ImportError(said) from None
        return pandas.DataFrame([self._row(j) for j in self.decisions], columns=list(COLUMNS))

    def _row(self, judgement: Judgement) -> dict[str, Any]:
        decision = judgement.decision
        ratings: dict[str, dict[str, list[float]]] = {}
        for r in decision.ratings:
            ratings.setdefault(r.choice, {}).setdefault(r.attribute, []).append(r.value)
        return {
            "run": self.record.id,
            "decider": decision.decider,
            "model": decision.model,
            "target": judgement.target,
            "scenario": decision.scenario,
            "choice": decision.choice,
            "index": judgement.index,
            "weights": decision.weights,
            "ratings": {
                c: {a: sum(v) / len(v) for a, v in by.items()} for c, by in ratings.items()
            },
            "status": decision.status,
            "why": decision.why,
            "correct": judgement.correct,
        }

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        from align_dsl.records.table import caption, table

        out = Console(file=StringIO(), width=140, color_system=None)
        out.print(table(self.results, self.notes))
        for line in caption(self.record, self.notes):
            out.print(line, markup=False, highlight=False)
        text: str = out.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())

    def __repr__(self) -> str:
        decided = sum(self.record.counts.values())
        return f"<run {self.record.id}: {self.record.status}, {decided:,} decisions>"

    def _repr_html_(self) -> str:
        """The table for notebooks. Nothing in it is taken for HTML."""
        from align_dsl.records.table import caption, percent

        head = "decider|model|attribute|target|accuracy|95 % interval|chance|n|left out|failed"
        rows = [
            [
                r.decider,
                self.notes.get(r.model) or r.model,
                r.attribute,
                r.target,
                percent(r.value) if r.metric == "accuracy" else f"{r.metric} {r.value}",
                f"{percent(r.low)} to {percent(r.high)}" if r.low is not None else "",
                percent(r.chance),
                *map(str, (r.n, r.left_out, r.failed)),
            ]
            for r in self.results
        ]
        cells = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        names = "".join(f"<th>{escape(name)}</th>" for name in head.split("|"))
        notes = "".join(f"<p>{_safe(line)}</p>" for line in caption(self.record, self.notes))
        title = f"{_safe(self.record.id)}: {_safe(self.record.status)}"
        return f"<table><caption>{title}</caption><tr>{names}</tr>{cells}</table>{notes}"


def _cell(text: str) -> str:
    return f"<td>{_safe(text)}</td>"


def _safe(text: str) -> str:
    return escape(visible(text))
