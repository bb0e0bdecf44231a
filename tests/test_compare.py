"""Two deciders on the very same cases: who is right where the other is wrong, and how surely."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from align_dsl.commands import cli
from align_dsl.errors import PlanError
from align_dsl.records.compare import column, compare, compare_two, with_holm
from align_dsl.records.store import Store
from align_dsl.types import Target
from tests.records.build import TARGETS, case, judgement, keep, recorded


def rows(pattern, decider="regression", **said):
    """One judgement per letter: r(ight), w(rong), f(ailed), l(eft out)."""
    outcome = {"r": True, "w": False, "f": None}
    return [
        judgement(i, decider=decider, correct=outcome.get(x, True), left_out=x == "l", **said)
        for i, x in enumerate(pattern)
    ]


def column_of(name, pattern, **said):
    run = recorded(rows(pattern, **said))
    return column(name, run, run.judgements)


def test_pairs_are_counted_and_what_is_missing_too():
    c = compare_two(column_of("A", "rrrwwffl"), column_of("B", "rwrrwrfll"))
    assert (c.both, c.only_a, c.only_b, c.neither, c.n) == (2, 1, 1, 1, 5)
    assert (c.left_out, c.failed_a, c.failed_b) == (1, 2, 1)
    assert (c.unpaired_a, c.unpaired_b) == (0, 1)
    assert c.accuracy_a == c.accuracy_b == 3 / 5
    assert c.difference is not None
    assert c.difference.value == 0
    assert c.p == 1
    assert [(f.scenario, f.a.correct, f.b.correct) for f in c.flips] == [
        ("s1", True, False),
        ("s3", False, True),
    ]


def test_a_clear_difference_is_found_and_signed_b_minus_a():
    c = compare_two(column_of("A", "w" * 30 + "r" * 30), column_of("B", "r" * 55 + "w" * 5))
    assert c.difference is not None
    assert c.difference.value == pytest.approx(25 / 60)
    assert 0 < c.difference.low < 25 / 60 < c.difference.high
    assert c.p == pytest.approx(binomtest(5, 35).pvalue)
    assert c.p_grouped is None


def test_pairs_of_one_group_are_not_independent():
    c = compare_two(column_of("A", "w" * 20, group="same"), column_of("B", "r" * 20, group="same"))
    assert c.difference is None
    assert c.p is not None
    assert c.p < 1e-5
    assert c.p_grouped == 1


def test_the_model_may_differ():
    c = compare_two(column_of("A", "rw", model="x"), column_of("B", "rr", model="y"))
    assert c.n == 2


def test_controls_are_no_decisions_for_the_target():
    run = recorded([*rows("rr"), *rows("ww", control=True)])
    assert compare_two(column("A", run, run.judgements), column_of("B", "rr")).both == 2


def test_holm_over_all_pairs():
    columns = [column_of(n, p) for n, p in (("A", "w" * 9), ("B", "r" * 9), ("C", "w" * 9))]
    single, *rest = compare(columns)
    assert with_holm([single]) == [single]
    first, second, third = with_holm([single, *rest])
    assert (first.a, first.b, second.b, third.a) == ("A", "B", "C", "B")
    assert first.p is not None
    assert first.p_holm == pytest.approx(3 * first.p)
    assert second.p_holm == 1


def test_all_failed_leaves_nothing_to_say():
    c = compare_two(column_of("A", "ff"), column_of("B", "rr"))
    assert (c.n, c.difference, c.p, c.accuracy_a) == (0, None, None, None)
    assert with_holm([c, c])[0].p_holm is None


def moved(run, targets):
    return run.model_copy(update={"record": run.record.model_copy(update={"targets": targets})})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: column_of("B", "rr", target="desert_low"), "no target is in both"),
        (lambda: column_of("B", ""), "B has decided nothing"),
        (
            lambda: column("B", r := recorded(rows("rrr")[2:]), r.judgements),
            r"no scenario is in both \(s0, s1; and s2\)",
        ),
        (
            lambda: column(
                "B",
                r := recorded(rows("rr"), [case(0, "other words"), case(1, "others")]),
                r.judgements,
            ),
            "say different things",
        ),
        (
            lambda: column(
                "B",
                r := moved(
                    recorded(rows("rr")),
                    (TARGETS[0], Target(name="desert_high", values={"desert": 0.9})),
                ),
                r.judgements,
            ),
            "say different things",
        ),
    ],
)
def test_nothing_paired_is_refused(make, said):
    with pytest.raises(PlanError, match=said):
        compare_two(column_of("A", "rr"), make())


# --- the command ---


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_STORE", raising=False)
    with Store.open(tmp_path / ".align" / "align.db") as store:
        one = [*rows("rrrw" * 5, "baseline"), *rows("rrrr" * 5), *rows("wwwr" * 5, "only_one")]
        keep(store, recorded(one, id="mta-one"))
        two = [*rows("wwww" * 5, "baseline"), *rows("rwrr" * 5)]
        keep(store, recorded(two, id="mta-two", created="2025-05-05T00:00:00+00:00"))
        many = [j for m in ("x", "y") for j in rows("rw" * 5, "baseline", model=m)]
        keep(store, recorded(many, id="wide", created="2024-05-05T00:00:00+00:00"))
        alone = recorded(rows("ww" * 5), id="alone", created="2024-05-05T00:00:00+00:00")
        keep(store, alone)
        keep(store, recorded([], id="empty", created="2024-05-05T00:00:00+00:00"))
    return lambda *words: CliRunner().invoke(cli, ["compare", *words])


def heads(shown):
    lines = [line for line in shown.stdout.splitlines() if line.startswith(("A  ", "B  "))]
    return [line.split("  ")[-1] for line in lines]


def test_two_deciders(call):
    shown = call("mta-one:baseline", "mta-one:regression", "--flips")
    assert shown.exit_code == 0, shown.exception
    assert heads(shown) == [
        "mta-one:baseline on embedded: no LLM",
        "mta-one:regression on embedded: no LLM",
    ]
    assert "75.0 %" in shown.stdout
    assert "+25.0 points, 95 % interval" in shown.stdout
    assert "exact McNemar p 0.0625" in shown.stdout
    assert "only A 0, only B 5" in shown.stdout
    assert shown.stdout.count("right  Treat B") == 5
    assert "Holm" not in shown.stdout


@pytest.mark.parametrize(
    ("words", "compared"),
    [
        (["mta-one", "last"], 2),  # each decider with its namesake
        (["mta-one:baseline", "mta-one"], 2),  # one decider with all the others of its run
        (["mta-one:baseline", "mta-one:regression", "mta-two:regression"], 3),
        (["wide", "wide:baseline@x"], 1),
        (["wide:baseline@x", "wide:baseline@y"], 1),
        (["wide", "mta-two:baseline"], 2),
        (["alone", "mta-one"], 1),
        (["alone:regression", "mta-one"], 3),
    ],
)
def test_what_is_compared_with_what(call, words, compared):
    shown = call(*words)
    assert shown.exit_code == 0, shown.exception
    assert len(heads(shown)) == 2 * compared
    assert ("Holm p" in shown.stdout) == (compared > 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mta-one:bseline", "last"], "did you mean `baseline`"),
        (["wide:baseline@z", "last"], "known: x, y"),
        (["mta-one", "wide"], "no decider in common"),
        (["empty", "last"], "no results"),
        (["mta-one:baseline", "mta-one:baseline"], "one and the same"),
        (["nope", "last"], "no run `nope`"),
    ],
)
def test_what_cannot_be_compared(call, words, said):
    failed = call(*words)
    assert failed.exit_code != 0
    assert said in str(failed.exception)


def test_one_is_not_enough(call):
    assert call("last").exit_code == 2
