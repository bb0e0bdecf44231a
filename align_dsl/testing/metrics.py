"""What a metric must keep: nothing scored is None, failures are counted, order means nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pytest

from align_dsl.testing._source import signature_of
from align_dsl.types import Case, Choice, Decision, Scenario, Score, Target

Metric = Callable[[Sequence[Decision], Mapping[str, Case], Target], Score]

TARGET = Target(name="x_high", values={"x": 1.0})
CASES = {
    f"case-{i}": Case(
        scenario=Scenario(
            id=f"case-{i}",
            text=f"Situation {i}.",
            choices=tuple(Choice(id=c, text=f"Do {c}.") for c in "abc"),
        ),
        labels={"a": {"x": i / 10}, "b": {"x": 1 - i / 10}, "c": {"x": 0.5}},
    )
    for i in range(5)
}


def decision(case: str, choice: str | None) -> Decision:
    return Decision(
        decider="d",
        model="m",
        target=TARGET.name,
        scenario=case,
        status="ok" if choice else "invalid",
        choice=choice,
        weights={c: float(c == choice) for c in "abc"} if choice else {},
    )


DECISIONS = tuple(decision(name, "abc"[i % 3]) for i, name in enumerate(CASES))


class MetricCase:
    """Subclass it with the fixture `metric`."""

    @pytest.fixture
    def metric(self) -> Metric:
        raise NotImplementedError("a subclass says which metric is tested")

    def test_says_what_it_measures(self, metric: Metric) -> None:
        signature = signature_of(metric)
        assert signature.about
        assert signature.output == "Score"

    def test_the_score_bears_its_name(self, metric: Metric) -> None:
        assert metric(DECISIONS, CASES, TARGET).metric == signature_of(metric).name

    def test_nothing_to_score_is_none(self, metric: Metric) -> None:
        score = metric((), {}, TARGET)
        assert (score.value, score.n, score.failed) == (None, 0, 0)

    def test_the_value_lies_within_its_interval(self, metric: Metric) -> None:
        score = metric(DECISIONS, CASES, TARGET)
        assert score.value is not None
        assert math.isfinite(score.value)
        if score.low is not None and score.high is not None:
            assert score.low <= score.value <= score.high

    def test_order_of_cases_does_not_matter(self, metric: Metric) -> None:
        cases = dict(reversed(CASES.items()))
        assert metric(DECISIONS[::-1], cases, TARGET) == metric(DECISIONS, CASES, TARGET)

    def test_a_failure_is_counted_and_is_no_wrong_answer(self, metric: Metric) -> None:
        name = next(iter(CASES))
        without = metric(DECISIONS[1:], CASES, TARGET)
        failed = metric((decision(name, None), *DECISIONS[1:]), CASES, TARGET)
        assert failed.failed == without.failed + 1
        assert (failed.value, failed.n) == (without.value, without.n)
