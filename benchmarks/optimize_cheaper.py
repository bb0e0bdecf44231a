"""How often is a cheaper configuration said to be as good, when it is and when it is not?

A verdict says so where less than 5 points of accuracy can be lost. Here two configurations answer
the same test cases, one question each; they disagree on a share of them, and the cheaper one is
truly as good, or truly 5 points worse.

    python benchmarks/optimize_cheaper.py [draws]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from align_dsl.optimize.verdict import TOLERATED, _least  # noqa: E402
from align_dsl.records.stats import cluster_bootstrap  # noqa: E402


def said(gains: np.ndarray, bootstrap: bool) -> bool:
    n = len(gains)
    span = cluster_bootstrap(gains.tolist(), range(n))
    assert span is not None
    low = span.low if bootstrap else min(span.low, _least((gains / n).tolist(), 1))
    return -low < TOLERATED


def main(draws: int = 1000) -> None:
    print("cases  differ  worse by   said as good   by the bootstrap alone")
    dice = np.random.default_rng(0)
    for n in (30, 84, 200, 500):
        for differ in (0.05, 0.1, 0.2):
            for worse in (0.0, 0.05):
                won, lost = (differ - worse) / 2, (differ + worse) / 2
                found = [0, 0]
                for _ in range(draws):
                    gains = dice.choice([1.0, -1.0, 0.0], size=n, p=[won, lost, 1 - differ])
                    found[0] += said(gains, False)
                    found[1] += said(gains, True)
                rates = "".join(f"{100 * f / draws:14.1f} %" for f in found)
                print(f"{n:5}  {differ:6.2f}  {worse:8.2f} {rates}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
