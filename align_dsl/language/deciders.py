"""`deciders:` of a program, or a decider file -> deciders with every wire and setting checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align_dsl.errors import CompileError, Findings, Span, nearest
from align_dsl.language.asking import asking
from align_dsl.language.demos import demos
from align_dsl.language.extend import extend
from align_dsl.language.library import Library, Unreadable
from align_dsl.language.program import AMBIENT, Decide, Decider, Step
from align_dsl.language.schema import (
    DecideDeclaration,
    DeciderDeclaration,
    DeciderFile,
    ParamDeclaration,
    StepDeclaration,
    read,
    read_part,
)
from align_dsl.language.settings import fits, settings
from align_dsl.language.signature import Param, Signature
from align_dsl.language.source import Path, Source
from align_dsl.language.wiring import wire
from align_dsl.language.work import Given, Work
from align_dsl.registry import Registry
from align_dsl.types import Attribute

RESERVED = frozenset(AMBIENT)


def resolve_decider(
    name: str,
    declared: DeciderDeclaration,
    source: Source,
    library: Library,
    attributes: Mapping[str, Attribute],
    found: Findings,
    origins: dict[str, Span],
) -> Decider | None:
    """One entry of `deciders:`; None where it is too broken to go on with."""
    at: Path = ("deciders", name)
    try:
        if declared.use is not None:
            return _used(name, declared, source, at, library, attributes, found, origins)
        for key in ("with_", "model"):
            if key == "with_" and declared.with_:
                span = source.key((*at, "with"))
                found.error(span, "`with` goes with `use`", "give `params:` other defaults instead")
        body = extend(source.sub(at), _loader(library))
        found.texts.update(body.texts)
        whole = read_part(DeciderDeclaration, body, (), body.data)
        if whole.decide is None:
            hint = "add `use: NAME` for a shipped one, or `steps:` and `decide:`"
            span = source.keys.get((*at, "use")) or source.key(at)
            found.error(span, f"the decider `{name}` does not say how it decides", hint)
            return None
        work = Work(name, body, library, attributes, found, origins)
        return _build(
            work, whole.about or "", whole.params, whole.steps, whole.decide, {}, declared.model
        )
    except CompileError as error:
        found.add(error)
        return None


def read_decider(source: Source, library: Library, found: Findings) -> Decider | None:
    """A decider file, with all its parameters at their defaults."""
    whole = extend(source, _loader(library))
    found.texts.update(whole.texts)
    declared = read(DeciderFile, whole)
    work = Work(declared.decider, whole, library, {}, found, {})
    return _build(work, declared.about, declared.params, declared.steps, declared.decide, {}, None)


def _loader(library: Library) -> Any:
    return lambda name, source: library.source("deciders", name)


def _used(
    name: str,
    declared: DeciderDeclaration,
    source: Source,
    at: Path,
    library: Library,
    attributes: Mapping[str, Attribute],
    found: Findings,
    origins: dict[str, Span],
) -> Decider | None:
    for key in ("extends", "params", "steps", "decide"):
        if getattr(declared, key):
            said = f"`{key}` does not go with `use`"
            hint = f"to change its steps, write `extends: {declared.use}` instead of `use:`"
            found.error(source.key((*at, key)), said, hint)
    assert declared.use is not None
    try:
        file = library.source("deciders", declared.use)
    except CompileError as error:
        if error.texts:
            raise
        wrong = error.diagnostics[0]
        found.error(source.at((*at, "use")), wrong.message, wrong.hint)
        return None
    whole = extend(file, _loader(library))
    found.texts.update(whole.texts)
    decider = read(DeciderFile, whole)
    given = {k: Given(v, source.at((*at, "with", k))) for k, v in declared.with_.items()}
    given = {k: Given(g.value, g.span, k) for k, g in given.items()}
    for unknown in given.keys() - decider.params.keys():
        said = f"the decider `{declared.use}` has no parameter `{unknown}`"
        found.error(source.key((*at, "with", unknown)), said, nearest(unknown, decider.params))
    work = Work(name, whole, library, attributes, found, origins)
    about = declared.about or decider.about
    return _build(work, about, decider.params, decider.steps, decider.decide, given, declared.model)


def _build(
    work: Work,
    about: str,
    params: Mapping[str, Any],
    steps: list[StepDeclaration],
    decide: DecideDeclaration,
    given: Mapping[str, Given],
    model: str | None,
) -> Decider | None:
    before = len(work.found.diagnostics)
    for name, written in params.items():
        _param(work, name, written, given.get(name))
    work.later = {step.name for step in steps}
    for i, step in enumerate(steps):
        _step(work, step, ("steps", i))
        if step.name not in work.steps:
            work.broken.add(step.name)
        work.later.discard(step.name)
    resolved = _decide(work, decide)
    wrong = [d for d in work.found.diagnostics[before:] if d.severity == "error"]
    if wrong or resolved is None:
        return None
    _all_is_used(work, params, resolved)
    values = {name: given.value for name, given in work.params.items()}
    return Decider(
        name=work.name,
        about=about,
        steps=tuple(work.steps.values()),
        decide=resolved,
        params=values,
        model=model,
    )


def _all_is_used(work: Work, params: Mapping[str, Any], decide: Decide) -> None:
    """Warn of what has no effect; asked of sound deciders only, where it follows from nothing."""
    for name in params.keys() - work.used:
        hint = f"use it as `${name}`, or delete it"
        work.found.warn(
            work.source.key(("params", name)), f"nothing uses the parameter `{name}`", hint
        )
    taken = {o for s in work.steps.values() for o in s.takes.values()} | set(decide.takes.values())
    for i, name in enumerate(work.steps):
        if name not in taken:
            hint = "take it in a later step or in `decide`, or delete it"
            span = work.source.at(("steps", i, "name"))
            work.found.warn(span, f"nothing takes the step `{name}`", hint)


def _param(work: Work, name: str, written: Any, given: Given | None) -> None:
    at: Path = ("params", name)
    declared = ParamDeclaration(default=written)
    if isinstance(written, dict):
        declared = read_part(ParamDeclaration, work.source, at, written)
    default = declared.default
    bounds = Param(
        name=name,
        type={bool: "bool", int: "int", float: "float", str: "str", list: "names"}.get(
            type(default), "any"
        ),
        low=declared.low,
        high=declared.high,
        choices=tuple(declared.choices) if declared.choices is not None else None,
    )
    if declared.low is not None and declared.high is not None and declared.low > declared.high:
        said = f"`low` ({declared.low:g}) is above `high` ({declared.high:g})"
        work.found.error(work.source.at((*at, "low")), said, "swap them")
        bounds = bounds.model_copy(update={"low": None, "high": None})
    if bounds.type == "int" and given and isinstance(given.value, float):
        bounds = bounds.model_copy(update={"type": "float"})  # the algorithm has the last word
    if bounds.type == "str" and given and isinstance(given.value, dict):
        bounds = bounds.model_copy(update={"type": "any"})  # a scale is a word or a mapping
    if isinstance(written, dict):
        at = (*at, "default")
    work.params[name] = given or Given(default, work.source.at(at), name)
    if not fits(work, bounds, work.params[name], text_is_prompt=False):
        work.broken.add(f"${name}")


def _step(work: Work, step: StepDeclaration, at: Path) -> None:
    found, source = work.found, work.source
    if step.name in RESERVED:
        said = f"the name `{step.name}` is taken by what every question brings along"
        found.error(source.at((*at, "name")), said, "give the step another name")
        work.broken.add(step.name)
    elif step.name in work.steps:
        said = f"two steps are named `{step.name}`"
        found.error(source.at((*at, "name")), said, "give one of them another name")
    algorithm = _look_up(
        work, work.library.algorithms, "algorithm", step.use, source.at((*at, "use"))
    )
    if algorithm is None:
        return
    if step.only is not None:
        work.note(f"{step.name}.only", source.at((*at, "only")))
        if "attribute" not in step.each:
            said = "`only` limits `each: [attribute]`, which this step does not have"
            found.error(source.key((*at, "only")), said, "add it, or delete `only`")
        for i, name in enumerate(step.only):
            work.is_attribute(name, source.at((*at, "only", i)))
    samples = work.follow(step.samples, source.at((*at, "samples")))
    order = work.follow(step.order, source.at((*at, "order")))
    if samples:
        fits(work, Param(name="samples", type="int", low=1, high=64), samples)
        work.note(f"{step.name}.samples", samples.span)
    if order:
        choices = ("given", "shuffle", "both", "all")
        fits(work, Param(name="order", type="str", choices=choices), order)
        work.note(f"{step.name}.order", order.span)
    takes = wire(work, algorithm, step.takes, at, set(step.each))
    params = settings(work, algorithm, step.with_, at, step.name)
    seldom = asking(work, step, at, algorithm, takes)
    if samples and order and isinstance(samples.value, int) and isinstance(order.value, str):
        work.steps[step.name] = Step.model_construct(
            name=step.name,
            algorithm=algorithm,
            each=tuple(dict.fromkeys(step.each)),
            only=tuple(dict.fromkeys(step.only)) if step.only is not None else None,
            takes=takes,
            samples=samples.value,
            order=order.value,  # type: ignore[arg-type]  # or it was complained of
            **seldom,
            demos=demos(work, step, at, algorithm, takes, params),
            params=params,
        )


def _decide(work: Work, decide: DecideDeclaration) -> Decide | None:
    at: Path = ("decide",)
    span = work.source.at((*at, "use"))
    aligner = _look_up(work, work.library.aligners, "aligner", decide.use, span)
    if aligner is None:
        return None
    takes = dict(decide.takes)
    if decide.take is not None:
        free = [p.name for p in aligner.ports if p.name not in AMBIENT]
        if not free:
            said = f"`{aligner.name}` takes no step"
            work.found.error(work.source.key((*at, "take")), said, "delete `take`")
        elif takes.setdefault(free[0], decide.take) != decide.take:
            said = f"`take` and `takes` both fill the port `{free[0]}`"
            hint = f"keep one: `take` is short for `takes: {{{free[0]}: {decide.take}}}`"
            work.found.error(work.source.key((*at, "take")), said, hint)
    wired = wire(work, aligner, takes, at, set())
    params = settings(work, aligner, decide.with_, at, "decide")
    return Decide(aligner=aligner, takes=wired, params=params)


def _look_up(
    work: Work, registry: Registry[Any], what: str, name: str, span: Span
) -> Signature | None:
    try:
        return work.library.signature(registry, name)
    except KeyError:
        work.found.error(span, f"no {what} named `{name}`", nearest(name, list(registry)))
    except Unreadable as error:
        work.found.error(span, f"the {what} `{name}` cannot be read", str(error))
    return None
