"""What every compiled module ends with. Read as text from the first heading on, never imported.

The constants stand for those of the program, so that this file can be checked like any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import dspy

from align_dsl import datasets, pipeline
from align_dsl.backends import Backend, open_backend
from align_dsl.engine.adapter import NoAnswer, TypedAdapter
from align_dsl.engine.decide import draw, heaviest, translated
from align_dsl.engine.shown import Shown
from align_dsl.engine.split import part
from align_dsl.language.library import shipped_folder
from align_dsl.language.program import Model, Split
from align_dsl.types import Attribute, Failure, Pool, Scenario

PROGRAM = ""
DIGEST = ""
SEED = 0
DATA = ("", "")
SPLIT: Split | None = None
ATTRIBUTES: dict[str, Attribute] = {}

# --- how they ask and decide -------------------------------------------------------------------


class Gathered:
    """What a step says of a scenario: ratings or votes, and what failed.

    Only where one answer speaks of all choices (`whole`) can another of its kind stand in for it.
    """

    def __init__(self, step: Any, model: Model, whole: bool = True) -> None:
        self.step, self.model, self.whole = step, model, whole
        self.said: list[tuple[str | None, Shown, Any]] = []  # attribute, as seen, what was said
        self.heard: set[str | None] = set()
        self.failures: list[tuple[str | None, Failure]] = []

    def ask(self, shown: Shown, about: Attribute | None = None, /, **takes: Any) -> None:
        name = about.name if about else None
        failed = next((v for v in takes.values() if isinstance(v, Failure)), None)
        try:
            if failed is not None:
                raise NoAnswer(failed)
            with answering(self.model):
                self.said += [(name, shown, one) for one in self.step(**takes)]
            self.heard.add(name)
        except NoAnswer as no:
            self.failures.append((name, no.failure))

    def of(self, attribute: Attribute | None = None) -> Any:
        """What was said of one attribute, in letters, for a step that builds on it."""
        near = {attribute.name, None} if attribute else {name for name, _, _ in self.said} | {None}
        failed = [f for name, f in self.failures if attribute is None or name in near]
        return failed[0] if failed else tuple(one for name, _, one in self.said if name in near)

    def all(self) -> tuple[Any, ...]:
        """Everything that was said, in terms of the scenario's own choices."""
        return tuple(translated(one, shown.means, name) for name, shown, one in self.said)

    @property
    def lost(self) -> Failure | None:
        """Why there is no decision, where an attribute has no whole answer."""
        covered = self.heard if self.whole else set()
        return next((f for name, f in self.failures if name not in covered), None)


def decided(
    decider: str, scenario: Scenario, weights: dict[str, float], said: Sequence[Any]
) -> dspy.Prediction:
    """The choice with the most weight; seed, decider and scenario break a tie."""
    best = heaviest(weights, scenario)
    if not best:
        return undecided(Failure(status="invalid", message="no choice has any weight"))
    choice = draw(best, scenario, decider, SEED)
    return dspy.Prediction(
        choice=choice,
        weights=weights,
        ratings=list(said),
        why=next((one.why for one in said if one.choice == choice and one.why), ""),
        status="tied" if len(best) > 1 else "ok",
    )


def undecided(failure: Failure) -> dspy.Prediction:
    return dspy.Prediction(
        choice=None, weights={}, ratings=[], why=failure.message, status=failure.status
    )


def answering(model: Model) -> Any:
    """The model and the adapter to ask it with; an LM that the caller has configured goes first."""
    if dspy.settings.lm is not None:
        return dspy.context(adapter=TypedAdapter())
    opened = backend(model)
    return dspy.context(lm=opened.lm, adapter=opened.adapter)


@cache
def backend(model: Model) -> Backend:
    """What answers for a model; paths are seen from the program's folder."""
    beside = home() / model.address
    if model.address and beside.exists():
        model = model.model_copy(update={"address": str(beside)})
    return open_backend(model)


@cache
def exemplars() -> Pool:
    """The program's pool of exemplars."""
    form, path = DATA
    cases = datasets.load(form, home() / path, ATTRIBUTES)
    return datasets.pool_of(part(cases, SPLIT, "train") if SPLIT else cases)


@cache
def home() -> Path:
    """The program's folder: from here, from beside this file, or among what align-dsl ships."""
    here = Path(__file__).resolve().parent
    for folder in (Path(), here, *here.parents, shipped_folder()):
        if (folder / PROGRAM).is_file():
            return (folder / PROGRAM).parent
    return here


def check() -> bool:
    """Whether the YAML still says what this module does; warns where it does not.

    True where the YAML is out of reach: then there is nothing to differ from.
    """
    file = home() / Path(PROGRAM).name
    if not file.is_file() or pipeline.compile(file).program.digest() == DIGEST:
        return True
    warnings.warn(f"{PROGRAM} has changed since it was compiled to {__name__}", stacklevel=2)
    return False
