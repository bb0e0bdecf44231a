"""A compiled program with its cases: a mapping of its deciders, and what runs them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_dsl import pipeline
from align_dsl.api.decider import Aim, Decider
from align_dsl.api.run import Run
from align_dsl.datasets import pool_of
from align_dsl.engine.budget import Budget
from align_dsl.engine.fork import outlives_forks
from align_dsl.engine.plan import concerns
from align_dsl.engine.split import part
from align_dsl.errors import Diagnostic, PlanError, nearest
from align_dsl.language import program as ir
from align_dsl.language.attributes import by_any_name
from align_dsl.language.targets import ENDS
from align_dsl.pipeline import Changes, Loaded, Selection
from align_dsl.records.judge import right_choices
from align_dsl.types import Case, Pool, Target

if TYPE_CHECKING:
    from align_dsl.backends import Backend
    from align_dsl.engine.execute import Progress


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
        self.begin_anew()
        outlives_forks(self)

    def begin_anew(self) -> None:
        """In the child of a fork, where nobody may be left who holds the lock."""
        self._lock = threading.Lock()

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
        with self._lock:
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
        tokens: int | None = None,
        retry_failed: bool = False,
        progress: Progress | None = None,
    ) -> Run:
        """What `align-dsl run` does, on the same store: what is known is not asked again.

        A run that its budget ends is `interrupted`, not an error. Where a model is gone in the
        middle, what had come is kept, and `BackendError` is raised.
        """
        from align_dsl.records.store import Store

        only = (only,) if isinstance(only, str) else tuple(only)
        selection = Selection(limit, only, control)
        with Store.open(Path(store)) as opened:
            outcome = pipeline.run(
                self._loaded,
                opened,
                selection,
                budget=Budget(budget, tokens),
                retry_failed=retry_failed,
                progress=progress,
            )
        if outcome.gone is not None:
            raise outcome.gone
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
        """Let go of what deciders have opened to talk to models. Also at the end of a `with`."""
        with self._lock:
            opened = [backend for _, backend in self._backends.values()]
            self._backends.clear()
        for backend in opened:
            backend.close()

    def __enter__(self) -> Compiled:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def pool(self) -> Pool:
        return pool_of(self._loaded.pool)

    @cached_property
    def _attribute_names(self) -> dict[str, str]:
        return by_any_name({a.name: a for a in self.program.attributes})

    def model_for(self, decider: ir.Decider, name: str | None) -> tuple[ir.Model, Backend]:
        """A model by name, opened once."""
        from align_dsl.backends import open_backend

        if name is None:
            name = decider.model or self.program.run_on[0]
        with self._lock:
            if name not in self._backends:
                known = {m.name: m for m in self.program.models}
                if name not in known:  # not in the program: written as after `--model`
                    changes = Changes(model=name, sets=self._changes.sets)
                    known = {m.name: m for m in pipeline.compile(self.file, changes).program.models}
                self._backends[name] = known[name], open_backend(known[name])
            return self._backends[name]

    def target_for(self, aim: Aim | None) -> Target:
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
