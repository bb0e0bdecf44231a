"""Where a winner comes from: the comments at the head of its file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from align_dsl import __version__
from align_dsl.errors import counted
from align_dsl.optimize.accuracy import percent, points, spread
from align_dsl.optimize.aims import COSTS, Aims
from align_dsl.optimize.carried import by_hand
from align_dsl.optimize.choose import Chosen
from align_dsl.optimize.done import Done
from align_dsl.optimize.row import shown
from align_dsl.optimize.task import Ready
from align_dsl.optimize.verdict import Verdict

if TYPE_CHECKING:
    from align_dsl.optimize.stock.learn import Found

ROOM = 50  # characters shown of a value


def of_search(
    made: Ready, chosen: Chosen, verdict: Verdict, done: Sequence[Done], to: Path
) -> Iterator[str]:
    whole = sum(1 for d in done if d.score is not None and not d.pruned)
    pruned = sum(1 for d in done if d.pruned)
    train = len({a.group for a in made.train.asked})
    yield f"Made by `align-dsl optimize` {__version__}. Use and edit it like any program."
    yield f"study    {made.study}, trial {chosen.done.number} of {len(done)}"
    yield f"         ({whole} whole, {pruned} pruned, seed {made.optimize.seed}, {made.sampler})"
    yield from _origin(made)
    for name, value in made.space.changes(chosen.done.config).items():
        before = made.space.default.get(name)
        yield f"changed  {name}: {shown(before, ROOM)} -> {shown(value, ROOM)}"
        if value in made.wordings.get(name, ()) and made.optimize.propose:
            yield f"         proposed by {made.optimize.propose.model}"
    gain = chosen.gain
    yield (
        f"train    {percent(chosen.default.score or 0)} -> {percent(chosen.done.score or 0)}"
        + (f", {points(gain.value)}, 95 % interval {spread(gain.low, gain.high)}" if gain else "")
        + f", on {counted(train, 'case')}"
    )
    if chosen.checked is None:
        yield "         that it was picked from by hand"
    else:
        yield f"         that chose it; {points(chosen.checked)} on blocks that had no say"
    yield from _of_test(made, verdict)
    if made.aims != Aims():
        each = [(name, *verdict.each(name)) for name in COSTS]
        said = ", ".join(f"{a:.4g} -> {b:.4g} {name}" for name, a, b in each)
        yield f"cost     {said} a decision"
    yield from _again(made, verdict, to)


def _origin(made: Ready) -> Iterator[str]:
    yield f"from     {made.task.program.name}, digest {made.loaded.program.digest()}"
    if said := by_hand(made):
        yield f"with     {said}"
    yield f"model    {made.model.name}"


def _again(made: Ready, verdict: Verdict, to: Path) -> Iterator[str]:
    """How the figure of the verdict is had again."""
    if made.optimize.cases != "train":  # a run takes its exemplars from train
        return
    named = to.name if to.is_absolute() else str(to)
    words = ["align-dsl", "run", named, "--only", made.space.decider.name]
    yield f"again    {shlex.join(words)} --set data.cases={made.optimize.accept}"
    if verdict.draws > 1:
        yield f"         which is one draw of exemplars; the test is the mean of {verdict.draws}"


def of_dspy(made: Ready, found: Found, verdict: Verdict, paid: int, to: Path) -> Iterator[str]:
    yield f"Made by `align-dsl optimize` {__version__}. Use and edit it like any program."
    yield f"study    {made.study}, `method: {made.optimize.method}`, seed {made.optimize.seed}"
    said = f"{counted(found.candidates, 'candidate')}, {counted(paid, 'call')}"
    yield f"         {said} with the verdict's"
    yield f"         DSPy {version('dspy')}: {found.optimizer}"
    if made.optimize.propose:
        yield f"         instructions written by {made.optimize.propose.model}"
    yield from _origin(made)
    for name, value in found.settings.items():
        said = (
            counted(len(value), "worked example") if isinstance(value, list) else shown(value, ROOM)
        )
        yield f"changed  {name}: {said}"
    for note in found.notes:
        yield f"note     {note}"
    if found.scores:
        before, after = found.scores
        said = f"train    {percent(before)} -> {percent(after)} on DSPy's part of it"
        yield f"{said}, the mean over questions"
    else:
        yield "train    held against nothing"
    yield from _of_test(made, verdict)
    yield from _again(made, verdict, to)


def _of_test(made: Ready, verdict: Verdict) -> Iterator[str]:
    value, low, high = verdict.gain
    yield (
        f"test     {percent(verdict.default)} -> {percent(verdict.winner)}, {points(value)},"
        f" 95 % interval {spread(low, high)}, p {verdict.p:.2g}"
    )
    yield (
        f"         on {counted(verdict.groups, 'case')} that no trial saw, split {made.split}, "
        f"look {verdict.looks}"
    )
    if any(verdict.failed):
        before, after = verdict.failed
        asked = counted(verdict.questions, "question")
        yield f"         {before:,} and {after:,} of {asked} failed"
