"""A task with `propose:` -> the same with other wordings of its instructions, written by a model.

They are asked for once in a study, before its first trial, by whoever begins it: one request for
each step, held to a schema. What is refused is counted, and the rest is written down in the study,
so that all who work on it try the same. The model sees the definitions, the instructions as they
are and train cases that were decided wrongly; never a test case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from align_dsl.backends import Backend, open_backend
from align_dsl.engine.execute import Stop
from align_dsl.engine.prompt import tokens
from align_dsl.errors import PlanError, visible
from align_dsl.language.program import Model
from align_dsl.language.space import WORDING, tunables
from align_dsl.language.tunable import Tunable
from align_dsl.optimize.dimension import Dimension, bears
from align_dsl.optimize.mistakes import mistakes, some
from align_dsl.optimize.sat import Interrupted
from align_dsl.optimize.stock.author import writes
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready
from align_dsl.optimize.wordings import KEY, SHOWN, Question, Wordings, present, sifted


def rewordable(made: Ready) -> list[Tunable]:
    """The settings that a model is to word anew; none where nobody would read it."""
    program, propose = made.loaded.program, made.optimize.propose
    if propose is None or not made.searches:
        return []
    (name,) = made.backends
    known = tunables(
        made.space.checked.source,
        made.space.library,
        made.space.decider,
        [a.name for a in program.attributes],
    )
    some = [t for t in known.values() if t.settings == {WORDING}]
    return [t for t in some if bears(t, program, program.model(name))]


def reworded(
    made: Ready,
    study: Study,
    *,
    budget: int | None = None,
    stop: Stop | None = None,
    say: Callable[[str], None] = lambda said: None,
) -> Ready:
    """With the wordings that the study has, or else gets now, for so many calls at most. Raises
    Interrupted, and PlanError where the model of `propose` cannot write."""
    settings = rewordable(made)
    if not settings:
        return made
    if study.kept(KEY) is None:
        _ask_all(made, study, settings, budget, stop, say)
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
        if one.why:
            yield f"`{who}` proposed no wording of {name} ({one.why}); the search goes on without"
            continue
        refused = "; ".join(f"{n} {why}" for why, n in one.refused.items())
        said = f"`{who}` proposed {sum(one.refused.values()) + len(one.texts)} wordings of {name}"
        yield f"{said}; refused: {refused}" if refused else said


# --- asking ---------------------------------------------------------------------------------------


def _ask_all(
    made: Ready,
    study: Study,
    settings: Sequence[Tunable],
    budget: int | None,
    stop: Stop | None,
    say: Callable[[str], None],
) -> None:
    model, backend = _author(made)
    try:
        backend.probe()
        names = " and ".join(t.name for t in settings)
        say(
            f"the default decides the train cases; then `{model.name}` proposes wordings of {names}"
        )
        # not under the lock: others who begin the same study share this work through the store
        wrong, spent = mistakes(made.train, made.space.default, budget=budget, stop=stop)
        if budget is not None and spent.paid + len(settings) > budget:
            raise Interrupted("budget", spent)
        with study.turn():
            if study.kept(KEY) is not None:
                study.keep("mistakes", len(wrong), (spent.paid, spent.paid_tokens))
                return
            found, paid, paid_tokens = {}, spent.paid, spent.paid_tokens
            for t in settings:
                answer = Question.of(made, t, some(wrong, SHOWN)).ask(made, model, backend)
                paid += answer.calls
                paid_tokens += answer.tokens
                found[t.name] = asdict(sifted(made, t, answer))
            study.keep(KEY, found, (paid, paid_tokens))
    finally:
        if backend not in made.backends.values():
            backend.close()


def _author(made: Ready) -> tuple[Model, Backend]:
    """The model that is to write. Raises PlanError where it cannot."""
    propose = made.optimize.propose
    assert propose is not None
    model = made.loaded.program.model(propose.model)
    backend = made.backends.get(model.name) or open_backend(model)
    if not writes(backend):
        if backend not in made.backends.values():
            backend.close()
        raise PlanError(
            f"error: `propose` needs a model that writes, and `{visible(model.name)}` does not\n"
            "  = name one: `propose: {model: ollama_chat/llama3.2:3b}` under `optimize:`"
        )
    return model, backend


# --- before anything is asked ---------------------------------------------------------------------


def told(made: Ready) -> Iterator[str]:
    """What `explain --optimize` says of it. Raises PlanError where the model cannot write."""
    settings, propose = rewordable(made), made.optimize.propose
    if propose is None or not settings:
        return
    _, backend = _author(made)
    if backend not in made.backends.values():
        backend.close()
    cases = [c for block in made.train.blocks for c in block]
    lengths = sorted(len(c.scenario.text) + sum(len(x.text) for x in c.scenario.choices)
                     for c in cases)  # fmt: skip
    usual = SHOWN * (tokens("x" * lengths[len(lengths) // 2]) + 60)
    for t in settings:
        one = Question.of(made, t, ())
        read = tokens(one.task) + tokens(one.question) + usual
        yield (
            f"  before the first trial `{propose.model}` is asked for {propose.count} wordings of"
            f" {t.name}: 1 call, about {read:,.0f} tokens read and at most {one.room:,} written"
        )


def doubts(made: Ready) -> Iterator[str]:
    """What of `propose` does nothing here."""
    if made.optimize.propose and made.searches and not rewordable(made):
        yield f"`{next(iter(made.backends))}` reads no instructions: nothing is proposed"
