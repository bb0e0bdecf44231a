"""A trial that has come to its end, as a study keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from optuna.trial import FrozenTrial, TrialState

from align_dsl.optimize.aims import Aims, costs
from align_dsl.optimize.propose import Tried
from align_dsl.optimize.sat import Sat, Spent
from align_dsl.optimize.space import Config


@dataclass(frozen=True, slots=True)
class Done:
    """A finished trial."""

    number: int
    slot: tuple[int, int]
    config: Config
    sat: Sat
    score: float | None  # what the sampler was told; None where it could not be tried
    pruned: bool
    seconds: float
    why: str = ""  # where it could not be tried
    over: Mapping[str, float] = field(default_factory=dict)  # limits: see Aims.over
    again: int = 0  # how often it was tried again, for its failures

    @property
    def costs(self) -> dict[str, float]:
        return costs(self.sat)

    @property
    def is_allowed(self) -> bool:
        return all(share <= 0 for share in self.over.values())

    def tried(self, aims: Aims) -> Tried:
        return Tried(
            self.config, self.score, tuple(self.costs[name] for name in aims.weighed), self.over
        )


def done_of(trial: FrozenTrial) -> Done | None:
    result = trial.user_attrs.get("result")
    if result is None or trial.state not in (TrialState.COMPLETE, TrialState.FAIL):
        return None
    if trial.state == TrialState.FAIL and "why" not in result:
        return None  # it was thought dead while it wrote
    batch, i, _ = trial.user_attrs["slot"]
    spent = Spent(**{f.name: result.get(f.name, 0) for f in fields(Spent)})
    return Done(
        number=trial.number,
        slot=(batch, i),
        config=dict(trial.user_attrs["config"]),
        sat=Sat(result.get("marks", ""), spent),
        score=trial.values[0] if trial.state == TrialState.COMPLETE else None,
        pruned=bool(result.get("pruned")),
        seconds=float(result.get("seconds", 0)),
        why=str(result.get("why", "")),
        over=result.get("over", {}),
        again=trial.user_attrs.get("again", 0),
    )


def is_lost(trial: FrozenTrial) -> bool:
    """Whether it came to no end, and its slot is to get another."""
    return bool(trial.state == TrialState.FAIL and "why" not in trial.user_attrs.get("result", {}))
