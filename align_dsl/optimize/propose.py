"""What was tried -> what to try next. Pure: the same trials, seed and number give the same batch.

Each batch has a sampler of its own, seeded with the study's seed and the batch's number, that is
shown all earlier batches in their order. So nothing of a sampler's state needs to be kept: a study
that was killed, or that many processes work on, goes the way of one that was left alone.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any, TypeAlias

import optuna
from optuna.trial import TrialState, create_trial

from align_dsl.errors import PlanError, nearest
from align_dsl.optimize.journal import quiet
from align_dsl.optimize.space import Config, Space, written
from align_dsl.types import digest

AGAIN = 5  # times a sampler may come up with what was tried before
POPULATION = 16  # of a genetic sampler: its own 50 would be most of a study
FORGETS = ("cmaes",)  # samplers that learn only from what they have proposed themselves
HEEDS = ("tpe", "nsgaii", "nsgaiii", "gp")  # samplers that know of limits
DRAWN = 100  # configurations that are looked at for one within the limits
LISTED = 20_000  # configurations that are written out to see which are left


Over: TypeAlias = Callable[[Config], Mapping[str, float]]  # see Aims.over


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
            config = _fresh(study, space, known, over)
            if config is None:
                dice = random.Random(f"{seed}/{batch}/{len(found)}")
                config = _any_left(space, known, dice, over)
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
            made.append(trial)
    return made


def _fresh(study: Any, space: Space, known: Mapping[str, Any], over: Over) -> Config | None:
    for _ in range(AGAIN):
        trial = study.ask()
        config = space.suggest(trial)
        key = written(config)
        if key in known:
            values = known[key]
            if values is None:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, values)
            continue
        passed = over(config)
        if not _is_over(passed):
            return config
        for name, share in passed.items():
            trial.set_constraint(name, share)
        study.tell(trial, state=TrialState.PRUNED)
    return None


def _any_left(
    space: Space, known: Mapping[str, Any], dice: random.Random, over: Over
) -> Config | None:
    """Any that was not tried and is within the limits; one that is not where many are not."""
    if space.size is not None and space.size <= LISTED:
        left = [c for key, c in every(space).items() if key not in known]
        drawn = dice.sample(left, min(DRAWN, len(left)))
        within = next((c for c in drawn if not _is_over(over(c))), None)
        return within if within or len(left) <= DRAWN else drawn[0]
    config = None
    for _ in range(DRAWN):
        one = space.canonical({d.name: _draw(d, dice) for d in space.dimensions})
        if written(one) in known:
            continue
        config = one
        if not _is_over(over(one)):
            break
    return config


def _is_over(shares: Mapping[str, float]) -> bool:
    return any(share > 0 for share in shares.values())


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


def plain_name(sampler: str) -> str:
    """
    >>> plain_name("NSGAIISampler"), plain_name("nsga-ii")
    ('nsgaii', 'nsgaii')
    """
    return sampler.lower().replace("-", "").replace("_", "").removesuffix("sampler")


def make_sampler(name: str, space: Space, seed: str) -> Any:
    """A sampler of Optuna by its name: `tpe`, `random`, `nsgaii`, `qmc`, `bruteforce` and so on."""
    known = {
        n.removesuffix("Sampler").lower(): n
        for n in dir(optuna.samplers)
        if n.endswith("Sampler") and not n.startswith(("Base", "PartialFixed"))
    }
    plain = plain_name(name)
    if plain not in known:
        said = f"error: Optuna has no sampler named `{name}`"
        raise PlanError(f"{said}\n  = {nearest(plain, known)}")
    if plain in FORGETS:
        said = (
            f"error: the sampler `{name}` would learn nothing: it goes by what it proposed itself"
        )
        raise PlanError(f"{said}\n  = use `tpe`: a study here is taken up by whoever comes next")
    made = getattr(optuna.samplers, known[plain])
    takes = inspect.signature(made.__init__).parameters
    options: dict[str, Any] = {}
    if "seed" in takes:
        options["seed"] = int(digest(seed)[:8], 16)
    if plain == "tpe":
        options |= {"multivariate": True, "group": True}  # settings may depend on others
    if "population_size" in takes:
        options["population_size"] = POPULATION
    if plain == "grid":
        options["search_space"] = {
            d.name: [d.label(v) for v in d.values or ()] for d in space.dimensions
        }
    try:
        return made(**options)
    except ImportError as error:
        said = f"error: the sampler `{name}` needs a package that is not installed: {error.name}"
        raise PlanError(said) from None
