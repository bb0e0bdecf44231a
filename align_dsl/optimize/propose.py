"""What was tried -> what to try next. Pure: the same trials, seed and number give the same batch.

Each batch has a sampler of its own, seeded with the study's seed and the batch's number, that is
shown all earlier batches in their order. So nothing of a sampler's state needs to be kept: a study
that was killed, or that many processes work on, goes the way of one that was left alone.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from align_dsl.errors import PlanError, nearest
from align_dsl.optimize.journal import quiet
from align_dsl.optimize.space import Config, Space, written
from align_dsl.types import digest

AGAIN = 5  # times a sampler may come up with what was tried before
LISTED = 20_000  # configurations that are written out to see which are left


@dataclass(frozen=True, slots=True)
class Tried:
    """A configuration and what it scored; None where it could not be tried at all."""

    config: Config
    score: float | None


def propose(
    space: Space, tried: Sequence[Tried], n: int, *, sampler: str, seed: int, batch: int
) -> list[Config]:
    """Up to n configurations that were not tried before; fewer where there are no more."""
    found: list[Config] = []
    known = {written(t.config): t.score for t in tried}
    with quiet():
        study = optuna.create_study(
            direction="maximize", sampler=make_sampler(sampler, space, f"{seed}/{batch}")
        )
        study.add_trials(_as_trials(space, tried))
        while len(found) < n:
            config = _fresh(study, space, known)
            if config is None:
                config = _any_left(space, known, random.Random(f"{seed}/{batch}/{len(found)}"))
            if config is None:
                break
            known[written(config)] = None
            found.append(config)
    return found


def _as_trials(space: Space, tried: Sequence[Tried]) -> list[Any]:
    made = []
    for one in tried:
        params, distributions = space.labels(one.config)
        if params and one.score is not None:
            made.append(create_trial(params=params, distributions=distributions, value=one.score))
    return made


def _fresh(study: Any, space: Space, known: dict[str, float | None]) -> Config | None:
    for _ in range(AGAIN):
        trial = study.ask()
        config = space.suggest(trial)
        key = written(config)
        if key not in known:
            return config
        score = known[key]
        if score is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, score)
    return None


def _any_left(space: Space, known: dict[str, float | None], dice: random.Random) -> Config | None:
    if space.size is not None and space.size <= LISTED:
        left = [c for key, c in every(space).items() if key not in known]
        return dice.choice(left) if left else None
    for _ in range(1000):
        config = space.canonical({d.name: _draw(d, dice) for d in space.dimensions})
        if written(config) not in known:
            return config
    return None


def _draw(dimension: Any, dice: random.Random) -> Any:
    if dimension.values is not None:
        return dice.choice(dimension.values)
    if dimension.size is not None:
        value = dimension.low + (dimension.step or 1) * dice.randrange(dimension.size)
        return int(value) if dimension.whole else value
    return dice.uniform(dimension.low, dimension.high)


def every(space: Space, limit: int = LISTED) -> dict[str, Config]:
    """All configurations of a space that has an end, each once."""
    options = []
    for d in space.dimensions:
        if d.values is not None:
            options.append(d.values)
        else:
            numbers = [d.low + (d.step or 1) * i for i in range(d.size or 0)]
            options.append(tuple(int(x) if d.whole else x for x in numbers))
    names = [d.name for d in space.dimensions]
    rows = (dict(zip(names, row, strict=True)) for row in islice(product(*options), limit))
    return {written(c): c for c in map(space.canonical, rows)}


def make_sampler(name: str, space: Space, seed: str) -> Any:
    """A sampler of Optuna by its name: `tpe`, `random`, `cmaes`, `qmc`, `bruteforce` and so on."""
    known = {
        n.removesuffix("Sampler").lower(): n
        for n in dir(optuna.samplers)
        if n.endswith("Sampler") and not n.startswith(("Base", "PartialFixed"))
    }
    plain = name.lower().replace("-", "").replace("_", "").removesuffix("sampler")
    if plain not in known:
        said = f"error: Optuna has no sampler named `{name}`"
        raise PlanError(f"{said}\n  = {nearest(plain, known)}")
    made = getattr(optuna.samplers, known[plain])
    takes = inspect.signature(made.__init__).parameters
    options: dict[str, Any] = {}
    if "seed" in takes:
        options["seed"] = int(digest(seed)[:8], 16)
    if plain == "tpe":
        options |= {"multivariate": True, "group": True}  # settings may depend on others
    if plain == "grid":
        options["search_space"] = {
            d.name: [d.label(v) for v in d.values or ()] for d in space.dimensions
        }
    try:
        return made(**options)
    except ImportError as error:
        said = f"error: the sampler `{name}` needs a package that is not installed: {error.name}"
        raise PlanError(said) from None
