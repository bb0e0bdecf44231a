"""Optuna's samplers by their names, each set up for a space and a seed."""

from __future__ import annotations

import inspect
from typing import Any

import optuna

from align_dsl.errors import PlanError, nearest
from align_dsl.optimize.space import Space
from align_dsl.types import digest

POPULATION = 16  # of a genetic sampler: its own 50 would be most of a study
FORGETS = ("cmaes",)  # samplers that learn only from what they have proposed themselves
HEEDS = ("tpe", "nsgaii", "nsgaiii", "gp")  # samplers that know of limits


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
        if lost := [d.name for d in space.dimensions if d.values is None]:
            said = f"error: the sampler `{name}` takes lists of values, and `{lost[0]}` is a range"
            raise PlanError(f"{said}\n  = write its values out under `optimize.space`")
        options["search_space"] = {
            d.name: [d.label(v) for v in d.values or ()] for d in space.dimensions
        }
    try:
        return made(**options)
    except ImportError as error:
        said = f"error: the sampler `{name}` needs a package that is not installed: {error.name}"
        raise PlanError(said) from None
