"""What pruning saves and what it costs, by simulation: no model, no files.

Groups of questions are right or wrong with the rates of two configurations that share most of
their luck. Every few groups the newcomer is held against the incumbent, as `optimize` does. Shown
for each difference in accuracy: how often it is pruned, and the questions it answered.

    python benchmarks/optimize_pruning.py

What a row should look like: one that is far worse goes early; one that is as good or better is
hardly ever pruned, for that cannot be put right later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import wilcoxon  # only here: a yardstick, not what we use

from align_dsl.optimize.choose import HOPELESS, evidence
from align_dsl.optimize.plans import LOOK
from align_dsl.records.stats import mcnemar

BLOCKS, PER_GROUP, ROUNDS = 5, 4, 600
GAINS = (0.1, 0.05, 0, -0.1, -0.2)
Rule = Callable[[np.ndarray, float], bool]  # gains of the groups seen, and how many of all that is


def sure(level: float, half: bool) -> Rule:
    """Ours: a sign test that may be looked at often; and not ours: at half time who is behind."""

    def rule(gains: np.ndarray, seen: float) -> bool:
        won, lost = int((gains > 0).sum()), int((gains < 0).sum())
        late = half and seen >= 0.5
        return lost > won and (late or evidence(won, lost) >= -np.log(level))

    return rule


def once(level: float) -> Rule:
    """An exact sign test at each look, as if it were the only one."""

    def rule(gains: np.ndarray, seen: float) -> bool:
        won, lost = (gains > 0).astype(int).tolist(), (gains < 0).astype(int).tolist()
        return sum(lost) > sum(won) and mcnemar(won, lost) <= level

    return rule


def ranks(level: float) -> Rule:
    """Wilcoxon, as Optuna's pruner."""

    def rule(gains: np.ndarray, seen: float) -> bool:
        if not gains.any() or gains.sum() >= 0:
            return False
        return bool(wilcoxon(gains, method="approx").pvalue <= level)

    return rule


RULES: tuple[tuple[str, Rule, int], ...] = (  # 0: a look after each block
    ("sign test 0.05, after each block", once(0.05), 0),
    ("Wilcoxon 0.05, after each block", ranks(0.05), 0),
    *((f"evidence {p}, every {LOOK} groups", sure(p, False), LOOK) for p in (0.05, 0.2, 0.3)),
    (f"evidence {HOPELESS}, and at half time", sure(HOPELESS, True), LOOK),
)


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


def simulate(rule: Rule, every: int, groups: int, gain: float) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    pruned = asked = 0.0
    for _ in range(ROUNDS):
        one, other = worlds(groups, gain, rng)
        for end in range(every, groups, every):
            if rule((one - other).sum(axis=1)[:end], end / groups):
                pruned += 1
                asked += end / groups
                break
        else:
            asked += 1
    return pruned / ROUNDS, asked / ROUNDS


def main() -> None:
    for groups in (50, 200):
        print(f"{groups} groups of {PER_GROUP} questions, incumbent at 0.65")
        print(f"{'rule':<44}" + "".join(f"{g:>+16.2f}" for g in GAINS))
        for name, rule, every in RULES:
            cells = [simulate(rule, every or groups // BLOCKS, groups, gain) for gain in GAINS]
            row = "".join(f"{p * 100:>8.0f} % {a * 100:>3.0f} %" for p, a in cells)
            print(f"{name:<44}{row}", flush=True)
        print()


if __name__ == "__main__":
    main()
