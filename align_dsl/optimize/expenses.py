"""What a study has cost so far, as its trials and its facts have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

SPENT = "spent"  # by optimizers of DSPy: facts that begin so
PAID = "paid "  # by verdicts, and for wordings
SESSION = "session "  # when a session began, and when it was last at work


def paid(trials: Iterable[FrozenTrial], facts: Mapping[str, Any]) -> tuple[int, int]:
    """Calls and tokens, of the unfinished trials as well."""
    pairs = [_paid(trial) for trial in trials]
    for key, said in facts.items():
        if key.startswith(PAID):
            pairs.append((said[0], said[1]))
        elif key.startswith(SPENT):
            pairs.append((int(said["calls"]), int(said["tokens"])))
    return sum(calls for calls, _ in pairs), sum(tokens for _, tokens in pairs)


def _paid(trial: FrozenTrial) -> tuple[int, int]:
    known = trial.user_attrs.get("paid")
    if known is None:  # of older versions, or nothing
        result = trial.user_attrs.get("result", {})
        known = result.get("paid", 0), result.get("paid_tokens", 0)
    return known[0], known[1]


def held(trials: Iterable[FrozenTrial], mine: FrozenTrial) -> int:
    """Calls that other trials at work may still need."""
    return sum(max(0, t.user_attrs["holds"] - _paid(t)[0]) for t in holders(trials, mine))


def holders(trials: Iterable[FrozenTrial], mine: FrozenTrial) -> list[FrozenTrial]:
    """Other trials that are at work, and have made sure of the calls that they need."""
    return [
        t
        for t in trials
        if t.state == TrialState.RUNNING and "holds" in t.user_attrs and t.number != mine.number
    ]


def elapsed(facts: Mapping[str, Any]) -> float:
    """Seconds on the clock in which anybody was at work on it."""
    rows = sorted((said[0], said[1]) for key, said in facts.items() if key.startswith(SESSION))
    total = end = 0.0
    for began, last in rows:
        total += max(0.0, last - max(began, end))  # what was at the same time counts once
        end = max(end, last)
    return total
