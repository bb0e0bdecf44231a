"""What was tried -> what to try next. Pure: the same trials, seed and number give the same batch.

Each batch has a sampler of its own, seeded with the study's seed and the batch's number, that is
shown all earlier batches in their order. So nothing of a sampler's state needs to be kept: a study
that was killed, or that many processes work on, goes the way of one that was left alone.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from align_dsl.optimize.journal import quiet
from align_dsl.optimize.sampler import make_sampler
from align_dsl.optimize.space import Config, Space, written
from align_dsl.optimize.untried import Over, any_left, beside, is_over

AGAIN = 5  # times a sampler may come up with what was tried before, and all that is near it
NEAR = 20  # configurations beside one that are looked at for one within the limits


@dataclass(frozen=True, slots=True)
class Tried:
    """A configuration and what it scored; None where it could not be tried at all."""

    config: Config
    score: float | None
    costs: tuple[float, ...] = ()  # that are weighed against it; less is better
    over: Mapping[str, float] = field(default_factory=dict)  # limits; above 0: not kept

    @property
    def values(self) -> tuple[float, ...] | None:
        return None if self.score is None else (self.score, *self.costs)


class _Told(FrozenTrial):
    """A trial of which nothing changes: a study that takes it in need not copy what is in it."""

    def __deepcopy__(self, memo: Any) -> _Told:
        return copy.copy(self)


def propose(
    space: Space,
    tried: Sequence[Tried],
    n: int,
    *,
    sampler: str,
    seed: int,
    batch: int,
    costs: int = 0,
    over: Over = lambda config: {},
) -> list[Config]:
    """Up to n configurations that were not tried before; fewer where there are no more. `costs` is
    how many are weighed against accuracy, `over` how far a configuration is known to pass limits
    before it is tried: such ones are passed over, as far as there are others."""
    found: list[Config] = []
    known = {written(t.config): t.values for t in tried}
    with quiet():
        made = make_sampler(sampler, space, f"{seed}/{batch}")
        directions = ["maximize", *["minimize"] * costs]
        study = optuna.create_study(directions=directions, sampler=made)
        study.add_trials(_as_trials(space, tried, made))
        while len(found) < n:
            dice = random.Random(f"{seed}/{batch}/{len(found)}")
            config = _fresh(study, space, known, over, dice)
            if config is None:
                config = any_left(space, known, dice, over)
            if config is None:
                break
            known[written(config)] = None
            found.append(config)
    return found


def _as_trials(space: Space, tried: Sequence[Tried], sampler: Any) -> list[Any]:
    """What was tried, as the sampler would know it had it proposed it all in this order."""
    made: list[Any] = []
    key = getattr(sampler, "_get_generation_key", None)
    for one in tried:
        params, distributions = space.labels(one.config)
        is_known = one.score is not None or (key is None and one.over)
        if params and is_known:
            system = {key(): len(made) // sampler.population_size} if key else {}
            trial = create_trial(
                state=TrialState.PRUNED if one.score is None else TrialState.COMPLETE,
                params=params,
                distributions=distributions,
                values=one.values,
                constraints=dict(one.over),
                system_attrs=system,
            )
            trial.__class__ = _Told
            made.append(trial)
    return made


def _fresh(
    study: Any, space: Space, known: Mapping[str, Any], over: Over, dice: random.Random
) -> Config | None:
    """What a sampler wants to see tried. Where that was tried, what lies next to it: in a space
    with few configurations it would want the same again and again."""
    for _ in range(AGAIN):
        trial = study.ask()
        drawn = space.suggest(trial)
        if written(drawn) not in known:
            passed = over(drawn)
            if not is_over(passed):
                return drawn
            for name, share in passed.items():
                trial.set_constraint(name, share)
            _tell(study, trial, state=TrialState.PRUNED)
            continue
        near = (one for one in beside(space, drawn, dice) if written(one) not in known)
        found = next((one for one in islice(near, NEAR) if not is_over(over(one))), None)
        if found is not None:
            return found
        values = known[written(drawn)]
        if values is None:
            _tell(study, trial, state=TrialState.FAIL)
        else:
            _tell(study, trial, values)
    return None


def _tell(study: Any, trial: Any, values: Any = None, state: TrialState | None = None) -> None:
    with suppress(RuntimeError):  # at its end a sampler would stop a loop that is not there
        study.tell(trial, values, state=state)
