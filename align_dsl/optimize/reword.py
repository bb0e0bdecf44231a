"""A task with `propose:` -> the same with other wordings of its instructions, written by a model.

They are asked for once in a study, before its first trial, by whoever begins it. What is refused is
counted, and the rest is written down in the study, so that all who work on it try the same. Where
nothing comes, nothing is written down: the study has not begun, and the same command asks again.
The model sees the definitions, the instructions as they are and train cases that were decided
wrongly; never a test case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.execute import Stop
from align_dsl.engine.prompt import tokens
from align_dsl.errors import AlignError, BackendError, PlanError, counted, visible
from align_dsl.language.space import WORDING, tunables
from align_dsl.language.tunable import Tunable
from align_dsl.optimize.author import Author, author_of
from align_dsl.optimize.dimension import Dimension, bears
from align_dsl.optimize.mistakes import mistakes, some
from align_dsl.optimize.sieve import Sieve, present
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready
from align_dsl.optimize.wordings import AGAIN, SPARE, Asking, Wordings, question, task

KEY = "wordings"  # under which a study keeps them
SHOWN = 6  # cases that were decided wrongly
SILENT = ("timeout", "refused")  # how it is kept that a server gave no answer to speak of


def rewordable(made: Ready) -> list[Tunable]:
    """The settings that a model is to word anew; none where nobody would read it."""
    program, propose = made.loaded.program, made.optimize.propose
    if propose is None or not made.searches:
        return []
    known = tunables(
        made.space.checked.source,
        made.space.library,
        made.space.decider,
        [a.name for a in program.attributes],
    )
    some = [t for t in known.values() if t.settings == {WORDING}]
    return [t for t in some if bears(t, program, made.model)]


def reworded(
    made: Ready,
    study: Study,
    *,
    budget: Budget = UNBOUNDED,
    stop: Stop | None = None,
    say: Callable[[str], None] = lambda said: None,
) -> Ready:
    """With the wordings that the study has, or else gets now, for as much at most. Raises
    Interrupted, and PlanError or BackendError where the model of `propose` writes none."""
    settings = rewordable(made)
    if not settings:
        return made
    if study.kept(KEY) is None:
        _ask_all(made, study, settings, budget, stop if stop is not None else Stop(), say)
    known = {name: Wordings(**one) for name, one in study.kept(KEY).items()}
    for line in _news(made, known):
        say(line)
    return _with(made, settings, {name: tuple(one.texts) for name, one in known.items()})


def expected(made: Ready) -> Ready:
    """With something in place of what is still to be written: as many, if all of it is good."""
    settings, propose = rewordable(made), made.optimize.propose
    if propose is None or not settings:
        return made
    n = range(1, propose.count + 1)
    return _with(
        made,
        settings,
        {t.name: tuple(f"{present(made, t)}\n(wording {i})" for i in n) for t in settings},
    )


def _with(made: Ready, settings: Sequence[Tunable], new: Mapping[str, tuple[str, ...]]) -> Ready:
    dimensions = {d.name: d for d in made.space.dimensions}
    for t in settings:
        if texts := new.get(t.name, ()):
            old = dimensions.get(t.name, Dimension(t.name, t.default, (t.default,), needs=t.needs))
            dimensions[t.name] = replace(old, values=(*(old.values or ()), *texts))
    space = replace(made.space, dimensions=tuple(dimensions.values()))
    train, test = replace(made.train, space=space), replace(made.test, space=space)
    return replace(made, space=space, train=train, test=test, wordings=new, named=made.study)


def _news(made: Ready, known: Mapping[str, Wordings]) -> Iterator[str]:
    assert made.optimize.propose is not None
    who = made.optimize.propose.model
    for name, one in known.items():
        n = counted(len(one.texts), "wording") if one.texts else "no wordings"
        said = f"`{who}` proposed {n} of {name}"
        yield f"{said}; of no use: {one.why}" if one.refused else said


# --- asking ---------------------------------------------------------------------------------------


def still_asked(made: Ready, study: Study) -> int:
    """Calls that wordings may take yet."""
    propose, settings = made.optimize.propose, rewordable(made)
    if propose is None or study.kept(KEY) is not None:
        return 0
    return len(settings) * (propose.count + SPARE)


def _ask_all(
    made: Ready,
    study: Study,
    settings: Sequence[Tunable],
    budget: Budget,
    stop: Stop,
    say: Callable[[str], None],
) -> None:
    author, purse = author_of(made), study.purse("wordings", budget)
    try:
        author.backend.probe()
        names, who = " and ".join(t.name for t in settings), author.model.name
        say(f"the default decides the train cases; then `{who}` proposes wordings of {names}")
        # not under the lock: others who begin the same study share this work through the store
        shown = some(mistakes(made.train, made.space.default, purse=purse, stop=stop), SHOWN)
        asking = Asking(made, author, purse, stop)
        with study.turn():
            if study.kept(KEY) is not None:
                return
            found = {t.name: asking.wordings(t, shown) for t in settings}
            if not any(one.texts for one in found.values()):
                raise _nothing(author, found)
            study.keep(KEY, {name: asdict(one) for name, one in found.items()})
    finally:
        purse.settle()
        author.close()


def _nothing(author: Author, found: Mapping[str, Wordings]) -> AlignError:
    """That there is nothing to try, and why."""
    why = "; ".join(f"{name}: {one.why}" for name, one in found.items())
    said = f"error: `{visible(author.model.name)}` wrote no wording that can be tried ({why})"
    reasons = [reason for one in found.values() for reason in one.refused]
    is_silent = all(reason.partition(":")[0] in SILENT for reason in reasons)
    return (BackendError if is_silent else PlanError)(f"{said}\n  = {AGAIN}")


# --- before anything is asked ---------------------------------------------------------------------


def told(made: Ready) -> Iterator[str]:
    """What `explain --optimize` says of it. Raises PlanError where the model cannot write."""
    settings, propose = rewordable(made), made.optimize.propose
    if propose is None or not settings:
        return
    author = author_of(made)
    author.close()
    cases = [c for block in made.train.blocks for c in block]
    lengths = sorted(len(c.scenario.text) + sum(len(x.text) for x in c.scenario.choices)
                     for c in cases)  # fmt: skip
    usual = SHOWN * (tokens("x" * lengths[len(lengths) // 2]) + 60)
    least, most = propose.count, propose.count + SPARE
    for t in settings:
        sieve = Sieve(made, t, ())
        read = tokens(task(sieve)) + tokens(question(sieve, ())) + usual
        others = (least - 1) / 2 * tokens(sieve.now)  # that stand in a question on average
        yield (
            f"  before the first trial `{propose.model}` is asked for"
            f" {counted(propose.count, 'wording')} of {t.name}: {least} to {most} calls, about"
            f" {least * (read + others):,.0f} tokens read and at most {most * author.tokens:,}"
            " written"
        )


def doubts(made: Ready) -> Iterator[str]:
    """What of `propose` does nothing here."""
    if made.optimize.propose and made.searches and not rewordable(made):
        yield f"`{made.model.name}` reads no instructions: nothing is proposed"
