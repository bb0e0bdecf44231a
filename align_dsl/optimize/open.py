"""What of a study is not finished: trials at work, and slots that are to get another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from align_dsl.optimize.done import is_lost
from align_dsl.optimize.space import Config


@dataclass(frozen=True, slots=True)
class Open:
    """What is not finished."""

    batch: int  # the newest
    size: int  # of it
    live: int = 0  # trials that wait, or that somebody is at work on
    lost: tuple[FrozenTrial, ...] = ()  # that somebody was at work on, and nobody is any more
    never: tuple[int, ...] = ()  # slots of the newest batch that nobody ever saw
    configs: tuple[Config, ...] = ()  # of the newest batch


def opened(trials: Iterable[FrozenTrial]) -> Open:
    """The newest batch, and what of all batches is not finished."""
    batch, size = -1, 0
    first: dict[tuple[int, int, int], FrozenTrial] = {}  # of each slot the first that counts
    for trial in trials:
        if (slot := trial.user_attrs.get("slot")) is None:
            continue
        b, i, n = slot
        again = trial.user_attrs.get("again", 0)
        if b > batch:
            batch, size = b, n
            first = {k: t for k, t in first.items() if k[2]}
        if b == batch or again:
            before = first.get((b, i, again))
            if before is None or is_lost(before):
                first[b, i, again] = trial
    rows = first.values()
    there = {i for b, i, _ in first if b == batch}
    return Open(
        batch,
        size,
        live=sum(not t.state.is_finished() for t in rows),
        lost=tuple(t for t in rows if is_lost(t)),
        never=tuple(i for i in range(size) if i not in there),
        configs=tuple(t.user_attrs["config"] for k, t in first.items() if k[0] == batch),
    )
