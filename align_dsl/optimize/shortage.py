"""A budget that is too small for a verdict -> what it needs, what there is, and what to write."""

from __future__ import annotations

from math import ceil, floor, log10

from align_dsl.engine.budget import LIMITS, Budget
from align_dsl.errors import BudgetError, counted
from align_dsl.optimize.allowance import Allowance
from align_dsl.optimize.reserve import MARGIN


def before_the_default(
    allowance: Allowance, calls: int | None = None, more: int = 0
) -> BudgetError:
    """It ends before the default was tried to the end, so there is nothing to judge. `calls` are
    those of everything but the verdict; if not given, of the default, another trial like it, and
    `more`."""
    budget, kept, train = allowance.budget, allowance.kept(), allowance.train
    (paid, tokens), seconds = allowance.study.paid(), allowance.seconds
    if calls is None:
        default = train.space.default
        calls = paid + train.lacks(default) + sum(train.calls(default).values()) + more
    what = budget.passed(0, tokens, seconds)
    if what and not paid:
        return _error(budget, what)
    enough = {"calls": calls + kept.calls}
    if paid:
        enough["tokens"] = ceil(MARGIN * calls * tokens / paid) + kept.tokens
        enough["seconds"] = ceil(MARGIN * calls * seconds / paid + kept.seconds)
    bounded = [name for name in enough if getattr(budget, name) is not None]
    if not bounded:
        return _error(budget, next(name for name in LIMITS if getattr(budget, name) is not None))
    what = max(bounded, key=lambda name: enough[name] / max(1, getattr(budget, name)))
    return _error(budget, what, getattr(kept, what), enough[what])


def before_the_verdict(budget: Budget, spent: int, needs: int) -> BudgetError:
    """So many calls are spent, and the verdict needs so many."""
    return _error(budget, "calls", needs, spent + needs, spent)


def _error(
    budget: Budget, what: str, needs: float = 0, enough: int | None = None, spent: int = 0
) -> BudgetError:
    given, about = getattr(budget, what), "" if what == "calls" else "about "
    said = f"error: the budget of {counted(given, what.removesuffix('s'))} is too small"
    if enough is None:
        said += ": it is spent before the default was tried to the end"
        return BudgetError(f"{said}\n  = write more: --budget {what}=N")
    if spent:
        said += f": {spent:,} {'is' if spent == 1 else 'are'} spent, and the verdict needs"
    else:
        said += ": the verdict alone needs"
    least = max(enough, floor(given) + 1)
    least = _round(least) if about else least
    return BudgetError(f"{said} {about}{needs:,.0f}\n  = write --budget {what}={least}")


def _round(number: int) -> int:
    """Up to two digits: the rest is not known.

    >>> _round(12345), _round(7), _round(990), _round(991)
    (13000, 7, 990, 1000)
    """
    unit: int = 10 ** max(0, floor(log10(number)) - 1)
    return -(-number // unit) * unit
