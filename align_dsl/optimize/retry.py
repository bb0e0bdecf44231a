"""What failed, and trying it again where somebody asks for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from align_dsl.errors import CompileError, counted
from align_dsl.optimize.done import Done
from align_dsl.optimize.sat import FAILED
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready


def retry(made: Ready, study: Study) -> None:
    """Forget the failures among the answers of a study, and open again the trials that had some.
    What they came to stands until they have come to something else."""
    default, chosen = made.space.default, study.facts().get("chosen")
    with study.turn():
        trials = {t.number: t for t in study.trials()}
        made.train.forget_failures(default)
        made.test.forget_failures(default, *([chosen] if made.searches and chosen else []))
        for one in study.done():
            if FAILED in one.sat.marks or (one.score is None and one.is_allowed):
                try:
                    made.train.forget_failures(one.config)
                except CompileError:  # nor would it now
                    continue
                study.reopen(trials[one.number], made.space, more=1)


def told(done: Sequence[Done]) -> Iterator[str]:
    """That answers failed, in words."""
    counts = [n for d in done if (n := d.sat.marks.count(FAILED))]
    if counts:
        yield (
            f"{counted(sum(counts), 'decision')} in {counted(len(counts), 'trial')} failed, and"
            f" {'counts' if sum(counts) == 1 else 'count'} as wrong;"
            " `--retry-failed` asks again for what they lack"
        )
