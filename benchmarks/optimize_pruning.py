"""What pruning saves and what it costs, by simulation: no model, no files.

Groups of questions are right or wrong with the rates of two configurations that share most of
their luck. After each of five blocks the newcomer is held against the incumbent, as `optimize`
does. Shown for each difference in accuracy: how often it is pruned, and the questions it answered.

    python benchmarks/optimize_pruning.py

What a row should look like: a configuration that is as good or better is hardly ever pruned, for
that cannot be put right later; one that is far worse goes early.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import wilcoxon  # only here: a yardstick, not what we use

from align_dsl.records.stats import mcnemar

BLOCKS, PER_GROUP, ROUNDS = 5, 4, 600
Test = Callable[[np.ndarray, np.ndarray], float]


def sign_test(one: np.ndarray, other: np.ndarray) -> float:
    """Ours: over groups, exact."""
    gains = (one - other).sum(axis=1)
    return mcnemar([int(g > 0) for g in gains], [int(g < 0) for g in gains])


def questions(one: np.ndarray, other: np.ndarray) -> float:
    """McNemar over questions, which takes those of a group to be independent."""
    return mcnemar(one.ravel().tolist(), other.ravel().tolist())


def ranks(one: np.ndarray, other: np.ndarray) -> float:
    """Wilcoxon over groups, as Optuna's pruner."""
    gains = (one - other).sum(axis=1)
    return float(wilcoxon(gains, method="approx").pvalue) if gains.any() else 1.0


def worlds(groups: int, gain: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rights and wrongs of newcomer and incumbent; a group's questions share a difficulty."""
    ease = rng.normal(0, 0.8, (groups, 1))
    luck = rng.random((groups, PER_GROUP))
    own = np.where(rng.random((groups, PER_GROUP)) < 0.5, rng.random((groups, PER_GROUP)), luck)
    # what a configuration gets right more, it gets right in some groups rather than others
    taste = rng.normal(0, 0.5, (groups, 1))

    def rate(accuracy: float, extra: np.ndarray | float) -> np.ndarray:
        return 1 / (1 + np.exp(-(np.log(accuracy / (1 - accuracy)) + ease + extra)))

    incumbent = (luck < rate(0.65, 0.0)).astype(int)
    newcomer = (own < rate(0.65 + gain, taste)).astype(int)
    return newcomer, incumbent


def simulate(test: Test, level: float, groups: int, gain: float) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    pruned = asked = 0.0
    for _ in range(ROUNDS):
        one, other = worlds(groups, gain, rng)
        ends = [groups * (b + 1) // BLOCKS for b in range(BLOCKS)]
        for end in ends[:-1]:
            if one[:end].mean() < other[:end].mean() and test(one[:end], other[:end]) <= level:
                pruned += 1
                asked += end / groups
                break
        else:
            asked += 1
    return pruned / ROUNDS, asked / ROUNDS


def main() -> None:
    for groups in (50, 200):
        print(f"{groups} groups of {PER_GROUP} questions, {BLOCKS} blocks, incumbent at 0.65")
        print(f"{'test':<22}{'level':>6}" + "".join(f"{g:>+16.2f}" for g in (0.05, 0, -0.1, -0.2)))
        for name, test in (("sign test, groups", sign_test), ("McNemar, questions", questions),
                           ("Wilcoxon, groups", ranks)):  # fmt: skip
            for level in (0.02, 0.05, 0.1):
                cells = [simulate(test, level, groups, gain) for gain in (0.05, 0, -0.1, -0.2)]
                row = "".join(f"{p * 100:>8.0f} % {a * 100:>3.0f} %" for p, a in cells)
                print(f"{name:<22}{level:>6}{row}", flush=True)
        print()


if __name__ == "__main__":
    main()
