"""Statistics against other people's implementations, brute force, and what must always hold."""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from math import comb
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from align_dsl.records import stats

few = settings(max_examples=50, deadline=None, derandomize=True, database=None)

units = st.floats(0, 1, allow_subnormal=False)
bits = st.integers(0, 1)
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
# One row per case: two deciders right or wrong, margin, rating, label, scenario, attribute.
cases = st.lists(
    st.tuples(
        bits, bits, units, units, units, st.sampled_from("pqrstuvw"), st.sampled_from(["m", "n"])
    ),
    min_size=1,
    max_size=25,
)
Rows = Sequence[tuple[Any, ...]]


def columns(rows: Rows) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


# --- shares of independent cases ------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(
    ("correct", "n"),
    [(0, 1), (1, 1), (0, 62), (62, 62), (7, 9), (1, 40), (50, 62), (313, 1000), (9_999, 10_000)],
)
@pytest.mark.parametrize(
    ("ours", "theirs"), [(stats.wilson, "wilson"), (stats.exact_binomial, "exact")]
)
def test_shares_agree_with_scipy(
    ours: Callable[..., Any], theirs: str, correct: int, n: int, confidence: float
) -> None:
    expected = scipy.stats.binomtest(correct, n).proportion_ci(confidence, method=theirs)
    interval = ours(correct, n, confidence)
    assert interval.value == correct / n
    assert interval.low == pytest.approx(expected.low, rel=1e-9, abs=1e-15)
    assert interval.high == pytest.approx(expected.high, rel=1e-12)


@pytest.mark.parametrize("correct", [0, 1, 17, 50_000, 99_998, 100_000])
def test_exact_binomial_is_stable_on_a_hundred_thousand(correct: int) -> None:
    expected = scipy.stats.binomtest(correct, 100_000).proportion_ci(0.95, method="exact")
    interval = stats.exact_binomial(correct, 100_000)
    assert interval is not None
    assert interval.low == pytest.approx(expected.low, rel=1e-9)
    assert interval.high == pytest.approx(expected.high, rel=1e-9)


@few
@given(counts)
@pytest.mark.parametrize("share", [stats.wilson, stats.exact_binomial])
def test_shares_stay_within_0_and_1_around_the_value(
    share: Callable[..., Any], count: tuple[int, int]
) -> None:
    correct, n = count
    interval = share(correct, n)
    assert 0 <= interval.low <= correct / n <= interval.high <= 1
    assert interval.low < interval.high
    wider = share(correct, n, 0.99)
    assert wider.low <= interval.low
    assert interval.high <= wider.high
    narrower = share(3 * correct, 3 * n)  # the same share of more cases
    assert narrower.high - narrower.low < interval.high - interval.low
    if correct < n:
        assert share(correct + 1, n).low > interval.low
        assert share(correct + 1, n).high > interval.high or interval.high == 1
    mirrored = share(n - correct, n)
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-12)


def test_wilson_of_none_and_all_starts_and_ends_exactly() -> None:
    for n in range(1, 100):  # at 21 plain arithmetic starts below 0
        none, every = stats.wilson(0, n), stats.wilson(n, n)
        assert none is not None
        assert every is not None
        assert (none.low, every.high) == (0, 1)


def test_wilson_takes_halves() -> None:
    low, middle, high = (stats.wilson(correct, 10) for correct in (6, 6.5, 7))
    assert low is not None
    assert middle is not None
    assert high is not None
    assert low.low < middle.low < high.low
    assert middle.value == 0.65


def test_an_interval_prints_as_one_reads_it() -> None:
    assert str(stats.wilson(20, 25)) == "0.80 [0.61, 0.91]"


# --- bootstraps -----------------------------------------------------------------------------------


def enumerated(rows: Rows) -> list[float]:
    """Every equally likely draw of clusters from (value, stratum, cluster) rows, by brute force."""
    clusters = sorted({cluster for _, _, cluster in rows})
    means = []
    for draw in itertools.product(clusters, repeat=len(clusters)):
        strata: dict[str, list[float]] = {}
        for drawn in draw:
            for value, stratum, cluster in rows:
                if cluster == drawn:
                    strata.setdefault(stratum, []).append(value)
        means.append(sum(sum(each) / len(each) for each in strata.values()) / len(strata))
    return means


ONE_STRATUM = [(v, "", c) for v, c in zip([1, 0, 0, 0.5, 1, 1, 0], "aaabccd", strict=True)]
TWO_STRATA = [
    *[(1.0, "m", "a"), (0.0, "m", "a"), (1.0, "n", "a"), (0.0, "n", "b")],
    *[(0.0, "n", "b"), (1.0, "m", "c"), (0.25, "n", "d"), (0.75, "n", "e")],
]


@pytest.mark.parametrize("rows", [ONE_STRATUM, TWO_STRATA])
@pytest.mark.parametrize("confidence", [0.3, 0.6, 0.9])
def test_draws_are_those_of_whole_clusters_in_all_strata(rows: Rows, confidence: float) -> None:
    interval = stats.macro_bootstrap(*columns(rows), draws=40_000, confidence=confidence)
    assert interval is not None
    every = np.array(enumerated(rows))
    # Half a point of probability either side: sampling error of 40,000 draws, twice over.
    tail = (1 - confidence) / 2
    for bound, below in ((interval.low, tail), (interval.high, 1 - tail)):
        assert (every < bound - 1e-9).mean() <= below + 0.005
        assert (every <= bound + 1e-9).mean() >= below - 0.005


def test_the_value_is_the_mean_of_stratum_means() -> None:
    interval = stats.macro_bootstrap(*columns(TWO_STRATA))
    assert interval is not None
    assert interval.value == pytest.approx((2 / 3 + 2 / 5) / 2)
    plain = stats.cluster_bootstrap([1, 0, 0, 1], "abbb")
    assert plain is not None
    assert plain.value == 0.5


def test_a_scenario_in_two_strata_moves_in_both() -> None:
    hits = [1, 0, 1, 1, 0, 1, 0, 0]
    values = hits + [1 - hit for hit in hits]  # what one stratum gains the other loses
    interval = stats.macro_bootstrap(values, ["m"] * 8 + ["n"] * 8, [*range(8), *range(8)])
    assert interval == (0.5, 0.5, 0.5)
    apart = stats.macro_bootstrap(values, ["m"] * 8 + ["n"] * 8, range(16))
    assert apart is not None
    assert apart.high - apart.low > 0.2


def test_single_cases_give_the_textbook_width() -> None:
    values = np.random.default_rng(3).normal(0.4, 0.2, 600).tolist()
    interval = stats.cluster_bootstrap(values, range(600), draws=20_000)
    assert interval is not None
    error = float(np.std(values)) / 600**0.5
    assert interval.low == pytest.approx(interval.value - 1.96 * error, abs=0.05 * error)
    assert interval.high == pytest.approx(interval.value + 1.96 * error, abs=0.05 * error)


def test_repeating_every_case_in_its_cluster_tells_nothing_new() -> None:
    values, clusters = [1, 0, 1, 1, 0, 0, 1, 1], "aabbcdef"
    once = stats.cluster_bootstrap(values, clusters)
    assert once is not None
    assert stats.cluster_bootstrap(values * 9, clusters * 9) == once
    alone = stats.cluster_bootstrap(values * 9, range(72))
    assert alone is not None
    assert alone.high - alone.low < 0.6 * (once.high - once.low)


def test_paired_is_of_the_difference_case_by_case() -> None:
    rng = np.random.default_rng(0)
    a, clusters = rng.random(60), [i // 3 for i in range(60)]
    shifted = stats.paired_bootstrap((a + 0.25).tolist(), a.tolist(), clusters)
    assert shifted == pytest.approx((0.25, 0.25, 0.25))
    assert stats.paired_bootstrap(a.tolist(), a.tolist(), clusters) == (0, 0, 0)
    b = rng.random(60)
    forth = stats.paired_bootstrap(a.tolist(), b.tolist(), clusters, draws=20_000)
    back = stats.paired_bootstrap(b.tolist(), a.tolist(), clusters, draws=20_000)
    assert forth is not None
    assert back is not None
    assert forth.value == pytest.approx(a.mean() - b.mean())
    assert back == pytest.approx((-forth.value, -forth.high, -forth.low), abs=0.01)


@few
@given(cases)
def test_bootstraps_surround_their_value_and_nest(rows: Rows) -> None:
    right, other, _, rating, _, scenario, attribute = columns(rows)
    makers: list[Callable[..., Any]] = [
        lambda **how: stats.cluster_bootstrap(rating, scenario, **how),
        lambda **how: stats.macro_bootstrap(right, attribute, scenario, **how),
        lambda **how: stats.paired_bootstrap(right, other, scenario, **how),
    ]
    for make in makers:
        interval = make(draws=200)
        if len(set(scenario)) < 2:
            assert interval is None
            continue
        assert interval.low <= interval.value <= interval.high
        assert interval == make(draws=200, seed=0)
        wider = make(draws=200, confidence=0.99)
        assert wider.low <= interval.low
        assert interval.high <= wider.high


def test_an_interval_never_misses_its_own_value() -> None:
    # 60 attributes of one large scenario (right) and one small (wrong): almost every draw is worse.
    rows = [(v, f"a{i}", f"{i}{v}") for i in range(60) for v in [1] * 9 + [0]]
    interval = stats.macro_bootstrap(*columns(rows), draws=300)
    assert interval is not None
    assert interval.low < 0.85
    assert interval.value == interval.high == pytest.approx(0.9)


def test_seeds_matter_and_batches_and_names_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = np.random.default_rng(1).random(90).tolist(), [i // 3 for i in range(90)]
    first = stats.cluster_bootstrap(values, clusters)
    assert first != stats.cluster_bootstrap(values, clusters, seed=1)
    assert first == stats.cluster_bootstrap(values, [("scenario", -c) for c in clusters])
    flipped = stats.sign_flip([v - 0.45 for v in values], clusters)
    assert flipped != stats.sign_flip([v - 0.45 for v in values], clusters, seed=1)
    monkeypatch.setattr(stats, "BATCH", 37)
    assert stats.cluster_bootstrap(values, clusters) == pytest.approx(first, abs=1e-12)
    assert stats.sign_flip([v - 0.45 for v in values], clusters) == flipped


# --- tests of differences -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("both", "first", "second"), [(3, 0, 0), (9, 0, 1), (0, 5, 0), (20, 12, 4), (0, 30, 31)]
)
def test_mcnemar_agrees_with_statsmodels(both: int, first: int, second: int) -> None:
    a = [1] * both + [1] * first + [0] * second + [0]
    b = [1] * both + [0] * first + [1] * second + [0]
    table = [[both, first], [second, 1]]
    expected = float(statsmodels_mcnemar(table, exact=True).pvalue) if first + second else 1.0
    assert stats.mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert stats.mcnemar(b, a) == stats.mcnemar(a, b)


def test_mcnemar_neither_overflows_nor_vanishes_on_many_cases() -> None:
    a, b = [1] * 51_000 + [0] * 49_000, [0] * 51_000 + [1] * 49_000
    expected = scipy.stats.binomtest(49_000, 100_000).pvalue
    assert stats.mcnemar(a, b) == pytest.approx(expected, rel=1e-8)
    assert stats.mcnemar([1] * 1_000, [0] * 1_000) == pytest.approx(2.0**-999, rel=1e-9)
    assert stats.mcnemar([1] * 9_000, [0] * 9_000) == 0.0


@pytest.mark.parametrize(
    "sums",
    [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, -1, 2, 0],
        [0.1, 0.2, -0.3, 0.6, 0.7],  # ties in arithmetic which floating point breaks
        [0.31, -0.02, 0.5, 0.11, 0.2, 0.07, -0.4, 0.33],
    ],
)
def test_sign_flip_agrees_with_all_flips(sums: list[float]) -> None:
    parts = [(total / 2, cluster) for cluster, total in enumerate(sums) for _ in range(2)]
    p = stats.sign_flip(*columns(parts), draws=20_000)
    every = [
        abs(sum(sign * total for sign, total in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    expected = sum(each >= abs(sum(sums)) - 1e-9 for each in every) / len(every)
    assert p == pytest.approx(expected, abs=0.01)


def test_sign_flip_knows_its_limits() -> None:
    assert stats.sign_flip([1] * 60, range(60)) == 1 / 10_000
    assert stats.sign_flip([1] * 60, range(60), draws=99) == 1 / 100
    assert stats.sign_flip([1] * 60, ["one"] * 60) == 1.0
    assert stats.sign_flip([1, -1, 0], range(3)) == 1.0
    differences = [0.4, 0.1, -0.3, 0.25, 0.2, 0.7, -0.1]
    assert stats.sign_flip(differences, range(7)) == stats.sign_flip(
        [-difference for difference in differences], range(7)
    )


def test_sign_flip_holds_its_level_only_by_clusters() -> None:
    rng = np.random.default_rng(7)
    by_cluster = alone = 0
    for _ in range(300):
        effects = (np.repeat(rng.normal(size=20), 5) + 0.3 * rng.normal(size=100)).tolist()
        by_cluster += stats.sign_flip(effects, [i // 5 for i in range(100)], draws=199) <= 0.05
        alone += stats.sign_flip(effects, range(100), draws=199) <= 0.05
    assert 0.02 <= by_cluster / 300 <= 0.08
    assert alone / 300 > 0.2


@settings(few, max_examples=20)  # statsmodels takes 20 ms each
@given(st.lists(units, min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)
    expected = multipletests(p_values, method="holm")[1]
    assert adjusted == pytest.approx(list(expected), abs=1e-12)
    assert all(raw <= after <= 1 for raw, after in zip(p_values, adjusted, strict=True))


@pytest.mark.parametrize(("n", "rate", "power"), [(62, 0.3, 0.8), (200, 0.2, 0.9), (5000, 1, 0.5)])
def test_the_detectable_difference_needs_just_this_many_cases(
    n: int, rate: float, power: float
) -> None:
    d = stats.minimum_detectable_difference(n, rate, power)
    assert d is not None
    z, z_power = scipy.stats.norm.ppf([0.975, power])
    assert ((z * rate**0.5 + z_power * (rate - d * d) ** 0.5) / d) ** 2 == pytest.approx(n)


def test_the_detectable_difference_is_detected_as_often_as_promised() -> None:
    n, rate = 300, 0.3
    d = stats.minimum_detectable_difference(n, rate)
    assert d is not None
    rng = np.random.default_rng(5)
    better, worse, _ = rng.multinomial(n, [(rate + d) / 2, (rate - d) / 2, 1 - rate], 20_000).T
    found = np.abs(better - worse) > 1.96 * np.sqrt(better + worse)
    assert found.mean() == pytest.approx(0.8, abs=0.015)


def test_sixty_two_cases_cannot_show_twelve_points() -> None:
    floor = stats.minimum_detectable_difference(62, 0.0)
    assert floor is not None
    assert floor == pytest.approx(0.1219, abs=1e-4)
    assert stats.minimum_detectable_difference(62, 0.05) == floor
    z, z_power = scipy.stats.norm.ppf([0.975, 0.8])
    needed = ((z * floor**0.5 + z_power * (floor - floor**2) ** 0.5) / floor) ** 2
    assert needed == pytest.approx(62)  # the rate being the difference itself
    assert stats.minimum_detectable_difference(3, 0.5) is None


@few
@given(st.integers(4, 2000), units, st.floats(0.5, 0.98))
def test_more_cases_show_smaller_differences(n: int, rate: float, power: float) -> None:
    d = stats.minimum_detectable_difference(n, rate, power)
    more = stats.minimum_detectable_difference(n + 1, rate, power)
    noisier = stats.minimum_detectable_difference(n, min(1, rate + 0.1), power)
    surer = stats.minimum_detectable_difference(n, rate, min(0.99, power + 0.1))
    stricter = stats.minimum_detectable_difference(n + 3, rate, power, alpha=0.01)
    assert d is not None
    assert more is not None
    assert noisier is not None
    assert surer is not None
    assert 0 < more < d <= noisier <= 1
    assert surer >= d
    assert stricter is None or stricter > d * (n / (n + 3)) ** 0.5


# --- chance ---------------------------------------------------------------------------------------

choice_sets = st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@few
@given(st.lists(choice_sets, min_size=1, max_size=6))
def test_chance_agrees_with_every_way_of_choosing(sets: list[tuple[int, int]]) -> None:
    n, shares = len(sets), np.zeros(len(sets) + 1)
    for outcome in itertools.product((0, 1), repeat=n):
        ways = [c / k if hit else 1 - c / k for hit, (c, k) in zip(outcome, sets, strict=True)]
        shares[sum(outcome)] += float(np.prod(ways))
    right = np.arange(n + 1) / n
    mean = float(shares @ right)
    got = stats.chance(sets)
    assert got is not None
    assert got.value == pytest.approx(mean)
    assert got.sd == pytest.approx(float(shares @ (right - mean) ** 2) ** 0.5, abs=1e-7)
    # The narrowest bounds that leave out at most 1 in 40 on either side.
    assert shares[right < got.low - 1e-9].sum() < 0.025 + 1e-9
    assert shares[right <= got.low + 1e-9].sum() >= 0.025 - 1e-9
    assert shares[right > got.high + 1e-9].sum() <= 0.025 + 1e-9
    assert shares[right >= got.high - 1e-9].sum() > 0.025 - 1e-9


@few
@given(st.integers(1, 60), st.integers(1, 9))
def test_chance_is_certain_where_every_choice_is_right_or_wrong(n: int, choices: int) -> None:
    assert stats.chance([(choices, choices)] * n) == (1, 0, 1, 1)
    assert stats.chance([(0, choices)] * n) == (0, 0, 0, 0)


def test_chance_of_many_cases_is_normal_and_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    coins = stats.chance([(1, 2)] * 5_000)
    assert coins is not None
    assert (coins.low, coins.high) == tuple(scipy.stats.binom(5_000, 0.5).ppf([0.025, 0.975]) / 5e3)
    sets = [(1, 2 + i % 4) for i in range(5_001)]
    normal = stats.chance(sets)
    monkeypatch.setattr(stats, "EXACT_CHANCE_UP_TO", 6_000)
    exact = stats.chance(sets)
    assert exact is not None
    assert normal is not None
    assert normal[:2] == exact[:2]
    assert normal[2:] == pytest.approx(exact[2:], abs=1.01 / 5_001)
    assert normal.low != exact.low  # the switch was thrown


# --- margins and ratings --------------------------------------------------------------------------


def test_risk_coverage_takes_equal_margins_together() -> None:
    points = stats.risk_coverage([0.1, 0.9, 0.5, 0.5], [0, 1, 1, 0])
    assert points == [(0.25, 1.0, 0.9), (0.75, 2 / 3, 0.5), (1.0, 0.5, 0.1)]
    assert points[0].accuracy == 1.0


@few
@given(st.lists(st.tuples(st.integers(0, 2), bits), min_size=1, max_size=6))
def test_the_area_is_the_average_over_orders_of_equal_margins(rows: Rows) -> None:
    areas = []
    for order in itertools.permutations(rows):
        if [margin for margin, _ in order] == sorted((m for m, _ in rows), reverse=True):
            errors = np.cumsum([1 - hit for _, hit in order])
            areas.append(float(np.mean(errors / np.arange(1, len(rows) + 1))))
    assert stats.area_under_risk_coverage(*columns(rows)) == pytest.approx(np.mean(areas))


@few
@given(st.lists(st.tuples(units, bits), min_size=1, max_size=40))
def test_risk_coverage_ends_at_plain_accuracy(rows: Rows) -> None:
    margins, correct = columns(rows)
    *_, last = stats.risk_coverage(margins, correct)
    assert (last.coverage, last.margin) == (1, min(margins))
    assert last.accuracy == pytest.approx(sum(correct) / len(rows))
    knowing, area, backwards = (
        stats.area_under_risk_coverage(by, correct)
        for by in (correct, margins, [-hit for hit in correct])
    )
    assert knowing is not None
    assert area is not None
    assert backwards is not None
    assert knowing - 1e-12 <= area <= backwards + 1e-12
    flat = stats.area_under_risk_coverage([0.5] * len(rows), correct)
    assert flat == pytest.approx(1 - sum(correct) / len(rows))


def test_calibration_by_hand() -> None:
    got = stats.calibration([0.05, 0.09, 0.95, 1.0], [0.15, 0.0, 0.75, 0.9])
    assert got is not None
    assert got.mae == pytest.approx((0.1 + 0.09 + 0.2 + 0.1) / 4)
    assert got.ece == pytest.approx((abs(-0.1 + 0.09) + abs(0.2 + 0.1)) / 4)
    assert got.n == 4
    errors_cancel = stats.calibration([0.42, 0.48], [0.48, 0.42])
    assert errors_cancel == pytest.approx((0.06, 0.0, 2))


@few
@given(st.lists(st.tuples(units, units), min_size=1, max_size=40), st.integers(1, 20))
def test_calibration_bounds(rows: Rows, bins: int) -> None:
    predicted, actual = columns(rows)
    got = stats.calibration(predicted, actual, bins)
    coarse = stats.calibration(predicted, actual, 1)
    assert got is not None
    assert coarse is not None
    assert got.mae == pytest.approx(float(np.mean(np.abs(np.subtract(predicted, actual)))))
    assert coarse.ece == pytest.approx(abs(float(np.mean(np.subtract(predicted, actual)))))
    assert coarse.ece - 1e-12 <= got.ece <= got.mae + 1e-12
    assert stats.calibration(actual, actual, bins) == (0, 0, len(rows))


@few
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=2, max_size=30))
def test_spearman_agrees_with_scipy(rows: Rows) -> None:
    a, b = columns(rows)
    got = stats.spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert got is None
        return
    assert got == pytest.approx(float(scipy.stats.spearmanr(a, b).statistic), abs=1e-9)
    assert stats.spearman(b, a) == got == stats.spearman([x**3 for x in a], b)
    assert stats.spearman(a, a) == 1
    assert stats.spearman([-x for x in a], a) == -1


# --- whatever the function ------------------------------------------------------------------------

BY_ROWS: dict[str, Callable[[Rows], Any]] = {
    "wilson": lambda rows: stats.wilson(sum(columns(rows)[0]), len(rows)),
    "exact_binomial": lambda rows: stats.exact_binomial(sum(columns(rows)[0]), len(rows)),
    "cluster_bootstrap": lambda rows: stats.cluster_bootstrap(
        columns(rows)[3], columns(rows)[5], draws=50
    ),
    "macro_bootstrap": lambda rows: stats.macro_bootstrap(
        columns(rows)[3], columns(rows)[6], columns(rows)[5], draws=50
    ),
    "paired_bootstrap": lambda rows: stats.paired_bootstrap(
        columns(rows)[3], columns(rows)[4], columns(rows)[5], draws=50
    ),
    "mcnemar": lambda rows: stats.mcnemar(columns(rows)[0], columns(rows)[1]),
    "sign_flip": lambda rows: stats.sign_flip(columns(rows)[3], columns(rows)[5], draws=50),
    "holm": lambda rows: sorted(stats.holm(columns(rows)[3])),
    "chance": lambda rows: stats.chance([(row[0], 1 + row[0] + row[1]) for row in rows]),
    "risk_coverage": lambda rows: stats.risk_coverage(columns(rows)[2], columns(rows)[0]),
    "area_under_risk_coverage": lambda rows: stats.area_under_risk_coverage(
        columns(rows)[2], columns(rows)[0]
    ),
    "calibration": lambda rows: stats.calibration(columns(rows)[3], columns(rows)[4]),
    "spearman": lambda rows: stats.spearman(columns(rows)[3], columns(rows)[4]),
}


@settings(few, max_examples=25)
@given(cases, st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", BY_ROWS)
def test_order_of_cases_does_not_matter(name: str, rows: Rows, rng: random.Random) -> None:
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert BY_ROWS[name](shuffled) == BY_ROWS[name](rows)  # to the last bit


@pytest.mark.parametrize("name", BY_ROWS)
def test_order_of_many_cases_does_not_matter_either(name: str) -> None:
    rng = np.random.default_rng(2)  # sums of so many fractions differ in the last bit by order
    right, numbers, label = rng.integers(2, size=(300, 2)), rng.random((300, 3)), "pqrstuvwmno"
    rows = [
        (*map(int, right[i]), *map(float, numbers[i]), label[i % 8], label[8 + i % 3])
        for i in range(300)
    ]
    expected = BY_ROWS[name](rows)
    for _ in range(5):
        assert BY_ROWS[name]([rows[i] for i in rng.permutation(300)]) == expected


def test_another_process_gets_the_same_interval() -> None:
    code = (
        "from align_dsl.records.stats import macro_bootstrap as boot;"
        "print(repr(boot([.1, .7, .4, .9, .3], 'mnomn', 'abcde')))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1


def test_holm_keeps_the_order_given() -> None:
    assert stats.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


@pytest.mark.parametrize(
    ("nothing", "expected"),
    [
        (lambda: stats.wilson(0, 0), None),
        (lambda: stats.exact_binomial(0, 0), None),
        (lambda: stats.cluster_bootstrap([], []), None),
        (lambda: stats.cluster_bootstrap([0, 1, 1], "aaa"), None),
        (lambda: stats.macro_bootstrap([], [], []), None),
        (lambda: stats.paired_bootstrap([], [], []), None),
        (lambda: stats.mcnemar([], []), 1.0),
        (lambda: stats.sign_flip([], []), 1.0),
        (lambda: stats.sign_flip([0, 0], "ab"), 1.0),
        (lambda: stats.holm([]), []),
        (lambda: stats.chance([]), None),
        (lambda: stats.risk_coverage([], []), []),
        (lambda: stats.area_under_risk_coverage([], []), None),
        (lambda: stats.calibration([], []), None),
        (lambda: stats.minimum_detectable_difference(0, 0.1), None),
        (lambda: stats.spearman([], []), None),
        (lambda: stats.spearman([1], [2]), None),
        (lambda: stats.spearman([1, 1], [1, 2]), None),
        (lambda: stats.cluster_bootstrap([1, 1, 1], "aab"), (1, 1, 1)),
    ],
)
def test_nothing_to_say(nothing: Callable[[], Any], expected: Any) -> None:
    assert nothing() == expected


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: stats.wilson(3, 2),
        lambda: stats.wilson(-1, 2),
        lambda: stats.wilson(NAN, 2),
        lambda: stats.wilson(1, 2, 1.0),
        lambda: stats.wilson(1, 2, 0.0),
        lambda: stats.exact_binomial(3, 2),
        lambda: stats.exact_binomial(1.5, 2),  # type: ignore[arg-type]
        lambda: stats.exact_binomial(1, 2, 95),
        lambda: stats.cluster_bootstrap([1, 0], "abc"),
        lambda: stats.cluster_bootstrap([1, NAN], "ab"),
        lambda: stats.cluster_bootstrap([1, 0], "ab", confidence=95),
        lambda: stats.cluster_bootstrap([1, 0], "ab", draws=0),
        lambda: stats.macro_bootstrap([1, INF], "mm", "ab"),
        lambda: stats.macro_bootstrap([1, 0], "m", "ab"),
        lambda: stats.paired_bootstrap([1, 0], [1], "ab"),
        lambda: stats.mcnemar([0.5], [1]),  # type: ignore[list-item]
        lambda: stats.mcnemar([0, 1], [1]),
        lambda: stats.sign_flip([0.5, NAN], "ab"),
        lambda: stats.sign_flip([0.5], "ab"),
        lambda: stats.sign_flip([0.5], "a", draws=0),
        lambda: stats.holm([0.5, 1.5]),
        lambda: stats.holm([NAN]),
        lambda: stats.chance([(1, 0)]),
        lambda: stats.chance([(3, 2)]),
        lambda: stats.chance([(-1, 2)]),
        lambda: stats.risk_coverage([NAN], [1]),
        lambda: stats.risk_coverage([1], [NAN]),
        lambda: stats.risk_coverage([1, 2], [1]),
        lambda: stats.calibration([1.2], [1]),
        lambda: stats.calibration([1], [NAN]),
        lambda: stats.calibration([1, 1], [1]),
        lambda: stats.calibration([1], [1], bins=0),
        lambda: stats.minimum_detectable_difference(50, 1.2),
        lambda: stats.minimum_detectable_difference(50, 0.2, power=0.3),
        lambda: stats.minimum_detectable_difference(50, 0.2, alpha=0),
        lambda: stats.minimum_detectable_difference(-1, 0.2),
        lambda: stats.spearman([1, 2], [1]),
        lambda: stats.spearman([1, NAN], [1, 2]),
    ],
)
def test_nonsense_is_refused(nonsense: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        nonsense()


# --- does 95 % mean 95 %? -------------------------------------------------------------------------


def coverages(share: Callable[..., Any], n: int) -> list[float]:
    """How often the interval holds each truth, summed over all that can be observed."""
    intervals = [share(correct, n) for correct in range(n + 1)]
    return [
        sum(
            comb(n, correct) * truth**correct * (1 - truth) ** (n - correct)
            for correct, interval in enumerate(intervals)
            if interval.low <= truth <= interval.high
        )
        for truth in np.linspace(0.05, 0.95, 37).tolist()
    ]


def test_shares_cover_as_often_as_they_say() -> None:
    wilson, exact = coverages(stats.wilson, 62), coverages(stats.exact_binomial, 62)
    assert np.mean(wilson) == pytest.approx(0.95, abs=0.008)
    assert min(wilson) > 0.92
    assert min(exact) >= 0.95
    assert np.mean(exact) < 0.98


def test_cluster_bootstrap_covers_where_single_cases_do_not() -> None:
    rng = np.random.default_rng(11)
    scenario = [i // 6 for i in range(240)]
    held = naive = 0
    for _ in range(400):
        difficulty = rng.beta(0.7, 0.7, size=40)  # a scenario is mostly hard or mostly easy
        right = (rng.random(240) < np.repeat(difficulty, 6)).astype(float).tolist()
        by_scenario = stats.cluster_bootstrap(right, scenario, draws=400)
        by_case = stats.cluster_bootstrap(right, range(240), draws=400)
        assert by_scenario is not None
        assert by_case is not None
        held += by_scenario.low <= 0.5 <= by_scenario.high
        naive += by_case.low <= 0.5 <= by_case.high
    assert 0.915 <= held / 400 <= 0.98
    assert naive / 400 < 0.85
