"""Cases -> the blocks of an exam."""

from __future__ import annotations

import random
from collections.abc import Sequence

from align_dsl.types import Case


def deal(cases: Sequence[Case], n: int, seed: int) -> tuple[tuple[Case, ...], ...]:
    """Cases in n blocks: whole groups to one, attributes evenly, the same way every time. Within a
    block they are mixed, as a trial may end in the middle of one."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group or case.scenario.id, []).append(case)
    names = sorted(groups)
    random.Random(f"blocks/{seed}").shuffle(names)
    names.sort(key=lambda g: sorted(groups[g][0].attributes()))  # stable: the order drawn remains
    n = min(n, len(names))
    blocks = [names[i::n] for i in range(n)]
    for i, block in enumerate(blocks):
        random.Random(f"block {i}/{seed}").shuffle(block)
    return tuple(tuple(case for name in block for case in groups[name]) for block in blocks)
