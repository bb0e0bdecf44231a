"""`deciders:` of a program, or a decider file -> deciders with every wire and setting checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from align_dsl.errors import CompileError, Findings, Span, inside, nearest
from align_dsl.language.complaint import described
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
from align_dsl.language.signature import Param, Port, Signature
from align_dsl.language.source import Path, Source
from align_dsl.language.wording import FIELDS, fields_in
from align_dsl.registry import Registry
from align_dsl.types import Attribute

RESERVED = frozenset(AMBIENT)
_REFERENCE = re.compile(r"\$\S*")  # so that a text may begin with a sum: "$5 are lost"


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it was written, however many `$`s it passed through since."""

    value: Any
    span: Span
    name: str = ""  # the parameter it was given to first


@dataclass(slots=True)
class _Work:
    """What is at hand while one decider is resolved."""

    name: str
    source: Source
    library: Library
    attributes: Mapping[str, Attribute]
    found: Findings
    origins: dict[str, Span]
    params: dict[str, Given] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    steps: dict[str, Step] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # steps and parameters already complained of
    later: set[str] = field(default_factory=set)  # names of steps not yet reached

    def note(self, where: str, span: Span) -> None:
        self.origins[f"{self.name}.{where}"] = span

    def follow(self, value: Any, span: Span) -> Given | None:
        """Replace `$name` by what the parameter was given."""
        if not (isinstance(value, str) and _REFERENCE.fullmatch(value)):
            return Given(value, span)
        name = value[1:]
        if name not in self.params:
            said = f"no parameter named `{name}`"
            hint = nearest(name, self.params) if self.params else f"add `params: {{{name}: VALUE}}`"
            self.found.error(span, said, hint)
            return None
        self.used.add(name)
        return None if f"${name}" in self.broken else self.params[name]


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
            found.error(source.key(at), f"the decider `{name}` does not say how it decides", hint)
            return None
        work = _Work(name, body, library, attributes, found, origins)
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
    work = _Work(declared.decider, whole, library, {}, found, {})
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
    work = _Work(name, whole, library, attributes, found, origins)
    about = declared.about or decider.about
    return _build(work, about, decider.params, decider.steps, decider.decide, given, declared.model)


def _build(
    work: _Work,
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


def _all_is_used(work: _Work, params: Mapping[str, Any], decide: Decide) -> None:
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


def _param(work: _Work, name: str, written: Any, given: Given | None) -> None:
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
    if isinstance(written, dict):
        at = (*at, "default")
    work.params[name] = given or Given(default, work.source.at(at), name)
    if not _check(work, bounds, work.params[name], text_is_prompt=False):
        work.broken.add(f"${name}")


def _step(work: _Work, step: StepDeclaration, at: Path) -> None:
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
            if work.attributes and name not in work.attributes:
                said = f"no attribute named `{name}` in this program"
                found.error(source.at((*at, "only", i)), said, nearest(name, work.attributes))
    samples = work.follow(step.samples, source.at((*at, "samples")))
    order = work.follow(step.order, source.at((*at, "order")))
    if samples:
        _check(work, Param(name="samples", type="int", low=1, high=64), samples)
        work.note(f"{step.name}.samples", samples.span)
    if order:
        choices = ("given", "shuffle", "both", "all")
        _check(work, Param(name="order", type="str", choices=choices), order)
        work.note(f"{step.name}.order", order.span)
    takes = _wire(work, algorithm, step.takes, at, set(step.each))
    params = _settings(work, algorithm, step.with_, at, step.name)
    if samples and order and isinstance(samples.value, int) and isinstance(order.value, str):
        work.steps[step.name] = Step.model_construct(
            name=step.name,
            algorithm=algorithm,
            each=tuple(dict.fromkeys(step.each)),
            only=tuple(dict.fromkeys(step.only)) if step.only is not None else None,
            takes=takes,
            samples=samples.value,
            order=order.value,  # type: ignore[arg-type]  # or it was complained of
            params=params,
        )


def _decide(work: _Work, decide: DecideDeclaration) -> Decide | None:
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
    wired = _wire(work, aligner, takes, at, set())
    params = _settings(work, aligner, decide.with_, at, "decide")
    return Decide(aligner=aligner, takes=wired, params=params)


def _look_up(
    work: _Work, registry: Registry[Any], what: str, name: str, span: Span
) -> Signature | None:
    try:
        return work.library.signature(registry, name)
    except KeyError:
        work.found.error(span, f"no {what} named `{name}`", nearest(name, list(registry)))
    except Unreadable as error:
        work.found.error(span, f"the {what} `{name}` cannot be read", str(error))
    return None


def _wire(
    work: _Work, signature: Signature, takes: Mapping[str, str], at: Path, each: set[str]
) -> dict[str, str]:
    """Port -> where it comes from, by name or by `takes`; every mismatch is reported."""
    found, source = work.found, work.source
    ports = {p.name: p for p in signature.ports}
    for extra in takes.keys() - ports.keys():
        said = f"`{signature.name}` has no port `{extra}`"
        found.error(source.key((*at, "takes", extra)), said, nearest(extra, ports))
    _each_has_a_port(work, signature, takes, at)
    wired: dict[str, str] = {}
    for port in signature.ports:
        origin = takes.get(port.name, port.name)
        where = (*at, "takes", port.name)
        span = source.at(where) if where in source.values else source.at((*at, "use"))
        if port.name in takes and where not in source.values:
            span = source.at((*at, "take"))
        if origin in work.broken:
            continue
        if origin in AMBIENT and (origin not in ("attribute", "choice") or origin in each):
            gives = AMBIENT[origin]
        elif origin in work.steps:
            gives = work.steps[origin].algorithm.output
        elif port.optional and port.name not in takes:
            continue
        else:
            _unwired(work, port, origin, span, takes, at)
            continue
        if gives != port.type:
            said = f"the port `{port.name}` wants {port.type}, but `{origin}` gives {gives}"
            found.error(span, said, _way_out(work, port, gives, at))
        wired[port.name] = origin
    return wired


def _each_has_a_port(work: _Work, signature: Signature, takes: Mapping[str, str], at: Path) -> None:
    """Repeating a step over something it never looks at would only ask the same thing again."""
    looked_at = {takes.get(p.name, p.name) for p in signature.ports}
    for i in range(99):
        place = (*at, "each", i)
        if place not in work.source.values:
            return
        span = work.source.values[place]
        each = work.source.data[at[0]][at[1]]["each"][i]
        if each not in looked_at:
            said = f"`{signature.name}` has no port for `{each}`"
            work.found.error(span, said, f"delete `{each}` here, or use another algorithm")


def _unwired(
    work: _Work, port: Port, origin: str, span: Span, takes: Mapping[str, str], at: Path
) -> None:
    if origin in ("attribute", "choice") and at[0] == "steps":
        said, hint = f"nothing provides `{port.name}`", f"add `{origin}` to `each: [...]`"
        if (*at, "each") not in work.source.values:
            hint = f"add `each: [{origin}]`"
    elif (
        port.name in takes
        and at[0] == "steps"
        and origin == work.source.data["steps"][at[1]].get("name")
    ):
        said, hint = f"the step `{origin}` takes itself", "take an earlier step"
    elif port.name in takes:
        said = f"no earlier step is named `{origin}`"
        hint = nearest(origin, work.steps) if work.steps else "there is no step before this one"
        if origin in work.later:
            hint = f"`{origin}` stands further down: move it up, before this step"
    else:
        said = f"nothing provides `{port.name}` ({port.type})"
        hint = _way_out(work, port, "", at)
    work.found.error(span, said, hint)


def _way_out(work: _Work, port: Port, gives: str, at: Path) -> str:
    """What would fit a port: a step that is there, or else what to use instead."""
    kind, names = port.type, [n for n, s in work.steps.items() if s.algorithm.output == port.type]
    if names:
        options = " or ".join(
            f"`take: {n}`" if at == ("decide",) else f"`takes: {{{port.name}: {n}}}`" for n in names
        )
        return f"write {options}"
    if at == ("decide",) and gives:
        fits = _that(work, work.library.aligners, lambda s: any(p.type == gives for p in s.ports))
        if fits:
            return f"for {gives} there are the aligners {', '.join(fits)}"
    makers = _that(work, work.library.algorithms, lambda s: s.output == kind)
    return f"{kind} come from a step that uses {' or '.join(makers)}" if makers else ""


def _that(work: _Work, registry: Registry[Any], fits: Callable[[Signature], bool]) -> list[str]:
    names = []
    for name in registry:
        try:
            if fits(work.library.signature(registry, name)):
                names.append(name)
        except Unreadable:  # somebody else's broken plug-in
            continue
    return names


def _settings(
    work: _Work, signature: Signature, written: Mapping[str, Any], at: Path, label: str
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in written.items():
        param = signature.param(name)
        if param is None:
            known = [p.name for p in signature.params]
            said = f"`{signature.name}` has no setting `{name}`"
            work.found.error(work.source.key((*at, "with", name)), said, nearest(name, known))
            continue
        given = work.follow(value, work.source.at((*at, "with", name)))
        if given is not None:
            _check(work, param, given)
            values[name] = given.value
            work.note(f"{label}.{name}", given.span)
    for param in signature.params:
        if param.required and param.name not in written:
            said = f"`{signature.name}` needs the setting `{param.name}`"
            hint = f"add `with: {{{param.name}: ...}}`"
            work.found.error(work.source.at((*at, "use")), said, hint)
        elif param.name not in values and param.default is not None:
            values[param.name] = param.default
    return values


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "prompt": ((str,), "text"),
    "bool": ((bool,), "true or false"),
    "names": ((list,), "a list"),
}


def _check(work: _Work, param: Param, given: Given, text_is_prompt: bool = True) -> bool:
    """Whether a value is what a setting takes; complaints call it as whoever wrote it does."""
    before = len(work.found.diagnostics)
    value: Any = given.value
    span, found, name = given.span, work.found, given.name or param.name
    kinds, wanted = _KINDS.get(param.type, ((object,), "a value"))
    fits = isinstance(value, kinds)
    if not fits or (isinstance(value, bool) and bool not in kinds):
        if param.type != "any":
            hint = f"for instance {_instance(param)}" if param.default is not None else ""
            found.error(span, f"`{name}` must be {wanted}, not {described(value)}", hint)
        return param.type == "any"
    if param.type == "names" and not all(isinstance(v, str) for v in value):
        found.error(span, f"`{name}` must be a list of texts", "for instance [one, another]")
    if param.choices is not None and value not in param.choices:
        options = ", ".join(str(c) for c in param.choices)
        hint = nearest(str(value), [str(c) for c in param.choices])
        said = f"`{name}` must be one of {options}, not {described(value)}"
        found.error(span, said, hint if hint.startswith("did") else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = param.low, param.high
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = (
                f"from {low:g} to {high:g}"
                if low is not None and high is not None
                else (f"at least {low:g}" if low is not None else f"at most {high:g}")
            )
            found.error(span, f"`{name}` must be {bounds}, not {value:g}")
    if param.type == "prompt" and text_is_prompt:
        for written in fields_in(value):
            if written not in FIELDS:
                said = f"a prompt has no field `{{{written}}}`"
                found.error(
                    inside(span, found.texts, f"{{{written}}}"), said, nearest(written, FIELDS)
                )
    return len(found.diagnostics) == before


def _instance(param: Param) -> str:
    return f"`{param.name}: {json.dumps(param.default)}`"
