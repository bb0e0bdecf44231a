"""A run as it ended, as Python and notebooks see it."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from align_dsl.errors import visible
from align_dsl.pipeline import Outcome
from align_dsl.records.record import Judgement, Result, RunRecord


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
