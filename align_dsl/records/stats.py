"""Correct-or-not, margins and ratings of cases -> how sure one may be of what they show.

The same numbers and seed give the same answer, whatever order the cases come in. `None` means that
there is nothing to say, which is not 0 and not NaN; what cannot be meant is a ValueError.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from math import exp, fsum, isfinite, lgamma, log, log1p, sqrt
from statistics import NormalDist
from typing import NamedTuple, TypeAlias

import numpy as np

Values: TypeAlias = Sequence[float]  # one per case; rights and wrongs are 1 and 0
Groups: TypeAlias = Sequence[Hashable]  # one per case: its scenario, its family of scenarios

EXACT_CHANCE_UP_TO = 5_000  # cases; the exact distribution costs their square, 50 ms at this many
BATCH = 100  # draws held at once, so that memory grows with the clusters alone


class Interval(NamedTuple):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


class Chance(NamedTuple):
    """One uniform pass over the cases falls in `low`..`high` 95 times in 100; `value` is exact."""

    value: float
    sd: float
    low: float
    high: float


class Point(NamedTuple):
    """Deciding only the cases of at least this margin: which share that is, and how often right."""

    coverage: float
    accuracy: float
    margin: float


class Calibration(NamedTuple):
    mae: float
    ece: float
    n: int


def wilson(correct: float, n: int, confidence: float = 0.95) -> Interval | None:
    """Interval of a share of independent cases; never of width 0, unlike a bootstrap's. `correct`
    may be fractional, as when ties count half. Cases that share a scenario: cluster_bootstrap."""
    z = -NormalDist().inv_cdf(_tail(confidence))
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} cases is not a share")
    if n == 0:
        return None
    share, shrink = correct / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / shrink
    return _around(share, max(0.0, centre - half), min(1.0, centre + half))


def exact_binomial(correct: int, n: int, confidence: float = 0.95) -> Interval | None:
    """Clopper-Pearson: covers at least as often as it says, so it is wider than wilson."""
    tail = _tail(confidence)
    if not 0 <= correct <= n or correct != int(correct):
        raise ValueError(f"{correct} of {n} cases is not a count")
    if n == 0:
        return None
    low, high = _share_with_tail(correct, n, tail), 1 - _share_with_tail(n - correct, n, tail)
    return _around(correct / n, low, high)


def cluster_bootstrap(
    values: Values, clusters: Groups, *, seed: int = 0, draws: int = 2000, confidence: float = 0.95
) -> Interval | None:
    """Percentile interval of the mean over cases, drawing whole clusters. None below two of them,
    which show nothing of how clusters differ. Too narrow below about 20, and of width 0 when all
    values agree: show wilson beside it."""
    whole = [""] * len(values)
    return macro_bootstrap(values, whole, clusters, seed=seed, draws=draws, confidence=confidence)


def macro_bootstrap(
    values: Values,
    strata: Sequence[str],
    clusters: Groups,
    *,
    seed: int = 0,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval | None:
    """As cluster_bootstrap, of the unweighted mean over strata (attributes) of each one's mean.
    A cluster found in several strata is drawn into all of them at once; a stratum that a draw
    leaves empty does not count in that draw."""
    if draws < 1:
        raise ValueError(f"{draws} draws are none")
    tail, column = _tail(confidence), {name: i for i, name in enumerate(sorted(set(strata)))}
    cells: defaultdict[Hashable, list[list[float]]] = defaultdict(lambda: [[] for _ in column])
    for value, stratum, cluster in zip(values, strata, clusters, strict=True):
        cells[cluster][column[stratum]].append(_finite(value))
    if len(cells) < 2:
        return None
    # Clusters of equal sums and sizes are interchangeable, so only how often each kind is drawn
    # matters. Rights and wrongs make few kinds: a million cases draw as fast as a hundred.
    kinds = Counter(tuple((fsum(cell), len(cell)) for cell in row) for row in cells.values())
    table = np.array(sorted(kinds), dtype=np.float64).reshape(len(kinds), -1)
    times, rng = np.array([kinds[row] for row in sorted(kinds)]), np.random.default_rng(seed)
    totals = [(times @ table)[None]]  # the cases themselves come first
    for done in range(0, draws, BATCH):
        batch = min(BATCH, draws - done)
        totals.append(rng.multinomial(len(cells), times / len(cells), size=batch) @ table)
    sums, sizes = np.vstack(totals)[:, 0::2], np.vstack(totals)[:, 1::2]
    means = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)
    value, *resampled = (means.sum(axis=1) / (sizes > 0).sum(axis=1)).tolist()
    low, high = np.quantile(resampled, [tail, 1 - tail]).tolist()
    return _around(value, low, high)


def paired_bootstrap(
    a: Values,
    b: Values,
    clusters: Groups,
    *,
    seed: int = 0,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval | None:
    """cluster_bootstrap of mean(a - b): two deciders on the same cases."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return cluster_bootstrap(differences, clusters, seed=seed, draws=draws, confidence=confidence)


def mcnemar(a: Sequence[int], b: Sequence[int]) -> float:
    """Exact two-sided p that two deciders, right (1) or wrong (0) on the same cases, are as good.
    It takes cases to be independent; where they share scenarios use sign_flip."""
    if not {*a, *b} <= {0, 1}:
        raise ValueError("mcnemar compares 0s and 1s")
    pairs = Counter(zip(a, b, strict=True))
    less, more = sorted((pairs[0, 1], pairs[1, 0]))
    return min(1.0, 2 * exp(_log_upper_tail(more, more + less, 0.5)))


def sign_flip(differences: Values, clusters: Groups, *, seed: int = 0, draws: int = 9999) -> float:
    """Two-sided p that the mean difference is 0, turning round whole clusters at random. The
    observed signs count as one more draw; k clusters cannot give less than about 2 / 2**k."""
    if draws < 1:
        raise ValueError(f"{draws} draws are none")
    members: defaultdict[Hashable, list[float]] = defaultdict(list)
    for difference, cluster in zip(differences, clusters, strict=True):
        members[cluster].append(_finite(difference))
    sums = [fsum(cluster) for cluster in members.values()]
    kinds = Counter(map(abs, sums))  # interchangeable, as in macro_bootstrap
    sizes, times = np.array(sorted(kinds)), np.array([kinds[size] for size in sorted(kinds)], int)
    # Rounding must not break ties with the observed sum: on few clusters they are most of p.
    reached = abs(fsum(sums)) - 1e-12 * fsum(map(abs, sums))
    rng, extreme = np.random.default_rng(seed), 0
    for done in range(0, draws, BATCH):
        kept = rng.binomial(times, 0.5, size=(min(BATCH, draws - done), len(kinds)))
        extreme += int((abs((2.0 * kept - times) @ sizes) >= reached).sum())
    return (1 + extreme) / (1 + draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for having looked at all of them, in the order given."""
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p values lie in 0..1")
    adjusted, least = [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, (len(p_values) - done) * p_values[place])
        adjusted[place] = min(1.0, float(least))
    return adjusted


def chance(sets: Sequence[tuple[int, int]]) -> Chance | None:
    """What choosing uniformly scores on these very cases: (correct choices, choices) of each.
    Above EXACT_CHANCE_UP_TO cases `low` and `high` are normal approximations."""
    if not all(0 <= correct <= choices and choices > 0 for correct, choices in sets):
        raise ValueError("a case has at least one choice, and 0 to all of them correct")
    n, shares = len(sets), sorted(correct / choices for correct, choices in sets)
    if n == 0:
        return None
    value, sd = fsum(shares) / n, sqrt(fsum(p * (1 - p) for p in shares)) / n
    if n > EXACT_CHANCE_UP_TO:
        low, high = (value + NormalDist().inv_cdf(q) * sd for q in (0.025, 0.975))
        return Chance(value, sd, max(0.0, low), min(1.0, high))
    right = np.eye(1, n + 1)[0]  # right[k]: probability of k correct among the cases seen so far
    for p in shares:
        right[1:] = right[1:] * (1 - p) + right[:-1] * p
        right[0] *= 1 - p
    low, high = np.searchsorted(np.cumsum(right), [0.025, 0.975]).tolist()
    return Chance(value, sd, low / n, high / n)


def risk_coverage(margins: Values, correct: Values) -> list[Point]:
    """One point per distinct margin, surest first; cases of equal margin come in together."""
    surest_first, weights = [-_finite(x) for x in margins], [_finite(x) for x in correct]
    levels, places, counts = np.unique(surest_first, return_inverse=True, return_counts=True)
    seen, hits = np.cumsum(counts), np.cumsum(np.bincount(places, weights))
    rows = np.column_stack([seen / len(margins), hits / seen, -levels]).tolist()
    return [Point(*row) for row in rows]


def area_under_risk_coverage(margins: Values, correct: Values) -> float | None:
    """Mean error rate over all coverages 1/n..1; lower is better, and margins that say nothing give
    the plain error rate. Cases of equal margin count as their average over all orders."""
    points, n = risk_coverage(margins, correct), len(margins)
    if not points:
        return None
    covered = [0.0] + [point.coverage * n for point in points]
    errors = [0.0] + [point.coverage * n * (1 - point.accuracy) for point in points]
    return float(np.mean(np.interp(np.arange(1, n + 1), covered, errors) / np.arange(1, n + 1)))


def calibration(predicted: Values, actual: Values, bins: int = 10) -> Calibration | None:
    """Ratings against labels, both 0..1. `ece` is how far the mean rating is from the mean label in
    bins of equal width, averaged over cases; unlike `mae` it forgives what cancels out in a bin."""
    if bins < 1 or not all(0 <= x <= 1 for xs in (predicted, actual) for x in xs):
        raise ValueError("ratings and labels lie in 0..1, in at least one bin")
    errors: defaultdict[int, list[float]] = defaultdict(list)
    for rating, label in zip(predicted, actual, strict=True):
        errors[min(int(rating * bins), bins - 1)].append(rating - label)
    n = len(predicted)
    if n == 0:
        return None
    mae = fsum(abs(error) for members in errors.values() for error in members) / n
    return Calibration(mae, fsum(abs(fsum(members)) for members in errors.values()) / n, n)


def minimum_detectable_difference(
    n: int, discordant_rate: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Smallest difference of two deciders on the same n cases that a two-sided test would find with
    this power, when they disagree on this share of cases; None if n is too small for any. As d
    takes disagreement on a share of d, a lower rate is read as d, and 0 gives the floor for n.
    Normal approximation (Connor 1987), too hopeful below about 20 cases."""
    if n < 0 or not (0 <= discordant_rate <= 1 and 0.5 <= power < 1):
        raise ValueError("n counts cases, a rate lies in 0..1, power in 0.5..1")
    z, z_power = -NormalDist().inv_cdf(_tail(1 - alpha)), NormalDist().inv_cdf(power)
    if n <= z * z:
        return None
    # n d^2 = (z sqrt(rate) + z_power sqrt(rate - d^2))^2, solved for d = root * sqrt(rate); with
    # the least rate possible, rate = d, the same equation gives d = root^2.
    root = (z * sqrt(n) + z_power * sqrt(n - z * z + z_power * z_power)) / (n + z_power * z_power)
    return root * max(root, sqrt(discordant_rate))


def spearman(a: Values, b: Values) -> float | None:
    """Rank correlation, ties sharing their mean rank; None if either side does not vary."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}")
    ranks = []
    for values in (a, b):
        finite = [_finite(value) for value in values]
        _, places, counts = np.unique(finite, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[places] - (len(values) + 1) / 2)
    x, y = ranks
    spread = sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread > 0 else None


def _log_upper_tail(correct: int, n: int, share: float) -> float:
    """log P(at least `correct` of n), for correct >= n * share: there the terms only fall, so their
    ratios add up without overflow or cancellation whatever n is."""
    odds, more = share / (1 - share), np.arange(correct, n)
    series = 1.0 + float(np.cumprod((n - more) / (more + 1) * odds).sum())
    ways = lgamma(n + 1) - lgamma(correct + 1) - lgamma(n - correct + 1)
    return ways + correct * log(share) + (n - correct) * log1p(-share) + log(series)


def _share_with_tail(correct: int, n: int, tail: float) -> float:
    """The share at which `correct` or more of n has probability `tail`: by bisection."""
    low, high = 0.0, correct / n
    while low < (middle := (low + high) / 2) < high:
        less = _log_upper_tail(correct, n, middle) < log(tail)
        low, high = (middle, high) if less else (low, middle)
    return low


def _around(value: float, low: float, high: float) -> Interval:
    """Rounding, or percentiles of few unequal clusters, may miss the value; nobody expects it."""
    return Interval(value, min(low, value), max(high, value))


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return (1 - confidence) / 2


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError(f"{value} is not a number to average")
    return float(value)
