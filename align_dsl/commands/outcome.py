"""What a search came to, in words: its trials, what was chosen of them, and the verdict."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align_dsl.commands.console import console
from align_dsl.commands.runs import _add, _table
from align_dsl.errors import counted

if TYPE_CHECKING:
    from align_dsl.optimize.aims import Aims
    from align_dsl.optimize.choose import Chosen
    from align_dsl.optimize.done import Done
    from align_dsl.optimize.run import Outcome
    from align_dsl.optimize.task import Ready
    from align_dsl.optimize.verdict import Verdict


def doubts(made: Ready) -> list[str]:
    """What costs and limits cannot do here, said before anything is spent."""
    from align_dsl.optimize.aims import costs, planned
    from align_dsl.optimize.reword import doubts as of_wordings
    from align_dsl.optimize.sampler import HEEDS, plain_name

    aims, found = made.aims, list(of_wordings(made))
    if made.aims.weighed or aims.at_most:
        if made.is_free:
            found.append("embedded makes no calls and takes no tokens: all costs are 0")
        if aims.at_most and plain_name(made.sampler) not in HEEDS:
            said = f"the sampler {made.sampler} knows nothing of limits, and does not avoid what"
            found.append(f"{said} breaks them")
        needed = costs(planned(made.train, made.space.default))["calls"]
        most = aims.at_most.get("calls", needed)
        if needed > most:
            found.append(
                f"the file's own settings need {needed:.4g} calls a decision, and may need"
                f" {most:g}: they are tried only to hold the others against"
            )
    return found


def opening(outcome: Outcome, aims: Aims) -> Iterator[str]:
    done = outcome.done
    dear = sum(not d.is_allowed for d in done)
    counts = {
        "whole": sum(d.score is not None and not d.pruned for d in done),
        "pruned": sum(d.pruned for d in done),
        "failed": sum(d.score is None and d.is_allowed for d in done),
    }
    said = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    said += f"; {dear:,} over the limits" if aims.at_most else ""
    yield (
        f"study {outcome.study}: {counted(len(done), 'trial')} ({said}),"
        f" {counted(outcome.paid, 'call')}; {outcome.ended}"
    )


def summary(outcome: Outcome, aims: Aims) -> Iterator[str]:
    chosen, verdict = outcome.chosen, outcome.verdict
    if chosen is not None:
        if not chosen.default.is_allowed:
            yield f"the default does not keep to `at_most`: {_excess(chosen.default, aims)}"
        if not chosen.done.is_allowed:
            yield "nothing that was tried keeps to `at_most`; the test cases were not looked at"
            return
        yield from _choice(chosen, aims)
        if verdict is None:
            yield _unjudged(outcome, aims)
    if verdict is None:
        return
    yield from judged(verdict, aims)
    if verdict.is_better:
        why = "" if not (aims.several or aims.at_most) else f"{verdict.why}; "
        yield f"better: {why}written to {outcome.written}"
    elif outcome.written is not None:
        yield f"not better: {verdict.why}; picked all the same, and written to {outcome.written}"
    else:
        yield f"not better: {verdict.why}; nothing was written"
        if aims.several or (chosen is not None and not chosen.default.is_allowed):
            yield "to have one written all the same: the same command with --pick and its number"


def _choice(chosen: Chosen, aims: Aims) -> Iterator[str]:
    from align_dsl.optimize.accuracy import percent, points
    from align_dsl.optimize.row import shown

    one, default = chosen.done, chosen.default
    if chosen.checked is None:
        yield f"chosen: trial {one.number}, by --pick"
    elif aims.several:
        rule = "the cheapest of those within a standard error of the best accuracy"
        yield f"chosen: trial {one.number}, {rule} (that of trial {chosen.best.number})"
    for name, value in one.config.items():
        before = default.config.get(name)
        if name not in default.config or before != value:
            yield f"  {name}: {shown(before)} -> {shown(value)}"
    said = f"train: {percent(default.score or 0)} -> {percent(one.score or 0)}"
    if chosen.checked is not None:
        said += f"; the gain on blocks that had no say is {points(chosen.checked)}"
    yield said


def _unjudged(outcome: Outcome, aims: Aims) -> str:
    chosen = outcome.chosen
    assert chosen is not None
    if not chosen.is_default:
        return f"no verdict: {outcome.ended}"
    if chosen.checked is None:
        return "that is the default: there is nothing to hold it against"
    if aims.several:
        return "not better: that is the default; the test cases were not looked at"
    return "not better: nothing did better on the train cases; the test cases were not looked at"


def judged(verdict: Verdict, aims: Aims) -> Iterator[str]:
    from align_dsl.optimize.accuracy import percent, points, spread
    from align_dsl.optimize.row import cost, number

    value, low, high = verdict.gain
    yield (
        f"test:  {percent(verdict.default)} -> {percent(verdict.winner)}, difference"
        f" {points(value)}, 95 % interval {spread(low, high)}, p {verdict.p:.2g};"
        f" {counted(verdict.only_winner, 'question')} won, {verdict.only_default:,} lost"
        f" of {verdict.questions:,}, in {counted(verdict.groups, 'case')}"
    )
    if verdict.draws > 1:
        yield f"       accuracies are means over {verdict.draws} draws of random exemplars"
    if any(verdict.failed):
        before, after = verdict.failed
        yield (
            f"       {counted(before, 'question')} failed with the default, {after:,} with the"
            " winner; they count as wrong"
        )
    if verdict.looks > 1:
        yield (
            f"       look {verdict.looks} at these test cases, so surer than usual: "
            f"{spread(*verdict.sure[1:])}"
        )
    if aims.several or aims.at_most:
        said = []
        for name in ("calls", "tokens"):
            was, needs = verdict.each(name)
            said.append(f"{number(name, was)} -> {cost(name, needs)}")
        yield f"cost:  {', '.join(said)} a decision"


def _excess(one: Done, aims: Aims) -> str:
    from align_dsl.optimize.row import cost

    said = [
        f"a decision needs {cost(name, one.costs[name])}, and may need {aims.at_most[name]:,g}"
        for name, share in one.over.items()
        if share > 0
    ]
    return "; ".join(said)


# --- trials as a table ----------------------------------------------------------------------------


def print_trials(
    trials: Sequence[Done], facts: Mapping[str, Any], chosen: int | None = None
) -> None:
    from align_dsl.optimize.row import row

    table = _table(">trial", ">train, %", "95 % interval", ">calls", ">tokens", "", "configuration")
    for one in trials:
        _add(table, *row(one, facts, chosen))
    console().print(table)


def weighed(aims: Aims) -> str:
    return f"{listed(aims.objectives)} are weighed against each other, so nothing is pruned"


def listed(names: Collection[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
