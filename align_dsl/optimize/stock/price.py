"""What a method of DSPy is about to do, and what it may cost at most, before anything is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from align_dsl.engine.bill import calls_of
from align_dsl.engine.plan import Plan
from align_dsl.errors import counted
from align_dsl.optimize.stock.learn import BATCH, BATCH_FROM, SHARE, Size, size_of
from align_dsl.optimize.task import Ready

DESCRIBED = 10  # examples that mipro shows at a time to have the data described
DESCRIPTIONS = 10  # of them at most, and one that sums them up


@dataclass(frozen=True, slots=True)
class Price:
    """Calls, were nothing known yet: fewer where questions come again."""

    deciding: int
    writing: int
    verdict: int

    @property
    def before(self) -> int:
        """All but the verdict."""
        return self.deciding + self.writing


def price(made: Ready) -> Price:
    blocks = made.train.blocks
    each = [_calls(made.train.plan(made.space.default, b)) for b in range(len(blocks))]
    n = max(1, round(SHARE * len(blocks)))
    train, val = (sum(each[:n]), sum(each[n:])) if n < len(blocks) else (sum(each), sum(each))
    size = size_of(made)
    writing = 0
    match made.optimize.method:
        case "bootstrap" if size.trials == 1:
            deciding = sum(each)
        case "bootstrap":
            deciding = size.trials * val + max(1, size.trials - 2) * train
        case "mipro":
            deciding = (size.candidates - 2) * train + _evaluated(made, size, val)
            if size.wordings > 1:
                asks = sum(s.algorithm.calls > 0 for s in made.space.decider.steps)
                examples = sum(a.block < n for a in made.train.asked)
                writing = min(DESCRIPTIONS, -(-examples // DESCRIBED)) + 1 + size.wordings * asks
        case _:
            deciding = size.trials * val
            writing = size.trials
    test = _calls(made.test.plan(made.space.default, 0))
    return Price(deciding, writing, 2 * test)


def _evaluated(made: Ready, size: Size, val: int) -> int:
    """Calls of mipro's trials: on a batch and now and then on all, or each on all."""
    n = max(1, round(SHARE * len(made.train.blocks)))
    questions = sum(a.block >= n for a in made.train.asked)
    if questions <= BATCH_FROM:
        return (size.trials + 1) * val
    return size.trials * -(-val * BATCH // questions) + (size.trials // 5 + 3) * val


def _calls(plan: Plan) -> int:
    return sum(calls_of(plan.jobs[key]) for key in plan.model_jobs)


def told(made: Ready) -> Iterator[str]:
    """What `explain --optimize` says of the method."""
    size, method = size_of(made), made.optimize.method
    yield f"  method: {method} of DSPy, seed {made.optimize.seed}, {_tries(made, size)}"
    cost = price(made)
    if made.is_free:
        yield "  no calls: embedded"
        return
    yield (
        f"  about {counted(cost.deciding, 'call')} to decide and {cost.writing:,} to write at most,"
        f" and {cost.verdict:,} for the verdict; what is known is not asked again"
    )


def _tries(made: Ready, size: Size) -> str:
    trials = counted(size.trials, "trial")
    match made.optimize.method:
        case "bootstrap":
            return "one set of demos" if size.trials == 1 else f"{size.trials} sets of demos"
        case "mipro" if size.wordings == 1:
            return f"{size.candidates} sets of demos in {trials}"
        case "mipro":
            said = f"{size.candidates} sets of demos with {size.wordings} wordings"
            return f"{said} in {trials}"
    return f"instructions rewritten for as long as {trials} would take"


def doubts(made: Ready) -> Iterator[str]:
    """Options that a method of DSPy does not heed."""
    task = made.task
    if task.workers > 1:
        yield "DSPy's optimizers run in one process: --workers does nothing"
    if task.sampler:
        yield "DSPy's optimizers have samplers of their own: --sampler does nothing"
    if made.aims.several or made.aims.at_most:
        yield "DSPy's optimizers look for accuracy alone: costs count in the verdict only"
    if made.optimize.space or made.optimize.variants:
        yield "`space` and `variants` are for `method: search`"
