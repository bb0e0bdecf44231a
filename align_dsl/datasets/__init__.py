"""One file per data format: a path and the attributes in, cases out.

`load` finds the reader and keeps its promises for it: unique ids, choices that can be told apart,
labels within 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from align_dsl.datasets._mistakes import LISTED
from align_dsl.errors import CompileError, Diagnostic, Span, rest
from align_dsl.language.files import listed
from align_dsl.registry import DATASETS
from align_dsl.types import Attribute, Case, Exemplar, Pool, Scenario, digest


def load(format: str, path: Path, attributes: Mapping[str, Attribute]) -> tuple[Case, ...]:
    """Every case of a file or folder. Raises CompileError with the places of all mistakes."""
    if not path.exists():
        wrong = Diagnostic(Span(str(path)), "there is no such data", "check the path")
        raise CompileError([wrong], {})
    cases = tuple(DATASETS[format.replace("-", "_")](path, attributes))
    if not cases:
        raise CompileError([Diagnostic(Span(str(path)), "no cases in here", _look(path))], {})
    found: list[str] = []
    seen: set[str] = set()
    for case in cases:
        found += _mistakes(case, seen)
        seen.add(case.scenario.id)
    if found:
        listed = [Diagnostic(Span(str(path)), said) for said in found[:LISTED]]
        if more := len(found) - LISTED:
            listed += [rest(Span(str(path)), more)] * (more > 0)
        raise CompileError(listed, {})
    return cases


def _look(path: Path) -> str:
    """What there is instead of cases, for someone who has named another folder or format."""
    if not path.is_dir():
        return "write cases into it, or give another path"
    names = sorted(p.name for p in islice(path.iterdir(), 1000))
    holds = f"the folder holds {listed(names)}" if names else "the folder is empty"
    return f"{holds}; check the path and `format:`"


def _mistakes(case: Case, seen: set[str]) -> list[str]:
    name = case.scenario.id
    ids = [c.id for c in case.scenario.choices]
    found = []
    if name in seen:
        found.append(f"two cases are named `{name}`")
    if not ids:
        found.append(f"the case `{name}` offers no choices")
    if len(set(ids)) < len(ids):
        found.append(f"two choices of the case `{name}` have the same id")
    for choice, by in case.labels.items():
        if choice not in ids:
            found.append(f"the case `{name}` labels a choice `{choice}` that it does not offer")
        for attribute, value in by.items():
            if not -1e-9 <= value <= 1 + 1e-9:
                found.append(
                    f"the label of `{choice}` on `{attribute}` in `{name}` is off the scale"
                )
    return found


def pool_of(cases: Sequence[Case]) -> Pool:
    """The labelled cases, as exemplars.

    Their choices stand in an order drawn from what they say: neither the order in a file nor the
    labels have a say in which letter the right choice gets.
    """
    return Pool(
        tuple(
            Exemplar(scenario=_shuffled(c.scenario), labels=c.labels, reasons=c.reasons)
            for c in cases
            if c.labels
        )
    )


def _shuffled(scenario: Scenario) -> Scenario:
    content = scenario.content()
    order = sorted(scenario.choices, key=lambda c: (digest(content + c.text), c.id))
    return scenario.model_copy(update={"choices": tuple(order)})
