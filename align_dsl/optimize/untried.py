"""Configurations that were not tried yet, found without a sampler."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, product, zip_longest
from typing import Any, TypeAlias

from align_dsl.optimize.dimension import Dimension
from align_dsl.optimize.space import Config, Space, written

DRAWN = 100  # configurations that are looked at for one within the limits
LISTED = 20_000  # configurations that are written out to see which are left

Over: TypeAlias = Callable[[Config], Mapping[str, float]]  # see Aims.over


def beside(space: Space, config: Config, dice: random.Random) -> Iterator[Config]:
    """Those that differ in a single setting, the nearest numbers first."""
    mine = [d for d in space.dimensions if d.name in config]
    dice.shuffle(mine)
    default = {d.name: d.default for d in space.dimensions}  # of what matters only now
    for row in zip_longest(*(_others(d, config[d.name], dice) for d in mine)):
        for d, other in zip(mine, row, strict=True):
            if other is not None:
                yield space.canonical({**default, **config, d.name: other[0]})


def _others(dimension: Dimension, value: Any, dice: random.Random) -> Iterator[tuple[Any]]:
    """The other values of a setting, each alone in a tuple; the nearest numbers first."""
    if (dimension.size or 0) > LISTED:
        return
    values = list(_values(dimension))
    if dimension.is_ordered:
        place = {v: i for i, v in enumerate(sorted(values))}
        dice.shuffle(values)  # of two as near, either may be first
        values.sort(key=lambda v: abs(place[v] - place[value]))
    else:
        dice.shuffle(values)
    yield from ((v,) for v in values if v != value)


def any_left(
    space: Space, known: Mapping[str, Any], dice: random.Random, over: Over
) -> Config | None:
    """Any that was not tried and is within the limits; one that is not where many are not."""
    if space.size is not None and space.size <= LISTED:
        left = [c for key, c in every(space).items() if key not in known]
        drawn = dice.sample(left, min(DRAWN, len(left)))
        within = next((c for c in drawn if not is_over(over(c))), None)
        return within if within or len(left) <= DRAWN else drawn[0]
    config = None
    for _ in range(DRAWN):
        one = space.canonical({d.name: _draw(d, dice) for d in space.dimensions})
        if written(one) in known:
            continue
        config = one
        if not is_over(over(one)):
            break
    return config


def is_over(shares: Mapping[str, float]) -> bool:
    return any(share > 0 for share in shares.values())


def _draw(dimension: Dimension, dice: random.Random) -> Any:
    if dimension.values is not None:
        return dice.choice(dimension.values)
    if dimension.size is not None:
        value = dimension.low + (dimension.step or 1) * dice.randrange(dimension.size)
        return int(value) if dimension.whole else value
    return dice.uniform(dimension.low, dimension.high)


def every(space: Space, limit: int = LISTED) -> dict[str, Config]:
    """All configurations of a space that has an end, each once."""
    names = [d.name for d in space.dimensions]
    rows = product(*map(_values, space.dimensions))
    found = (space.canonical(dict(zip(names, row, strict=True))) for row in islice(rows, limit))
    return {written(c): c for c in found}


def _values(dimension: Dimension) -> tuple[Any, ...]:
    """All of them, of a setting that has so many; none of one without end."""
    if dimension.values is not None:
        return dimension.values
    numbers = (dimension.low + (dimension.step or 1) * i for i in range(dimension.size or 0))
    return tuple(int(x) if dimension.whole else x for x in numbers)
