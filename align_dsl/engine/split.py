"""Cases -> train and test, whole groups to one side, the same way every time."""

from __future__ import annotations

import random
from collections.abc import Sequence

from align_dsl.language.program import Part, Split
from align_dsl.types import Case, digest


def part(cases: Sequence[Case], split: Split | None, wanted: Part) -> tuple[Case, ...]:
    """The cases of one part, in their own order."""
    if wanted == "all" or split is None:
        return tuple(cases)
    keys = sorted({_group(c, split) for c in cases})
    random.Random(f"{split.seed}/{digest(repr(keys))}").shuffle(keys)
    n_train = max(1, round(split.train * len(keys)))
    n_test = max(1, min(len(keys) - n_train, round(split.test * len(keys))))
    chosen = set(keys[:n_train]) if wanted == "train" else set(keys[n_train : n_train + n_test])
    return tuple(c for c in cases if _group(c, split) in chosen)


def _group(case: Case, split: Split) -> str:
    # cases with the same words belong together whatever their group says
    if split.group == "group" and case.group:
        return case.group
    return " ".join(case.scenario.text.split())
