"""A program file -> the typed program: every name looked up, every mistake reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from align_dsl.errors import Diagnostic, Findings, Span, nearest
from align_dsl.language.attributes import resolve_attributes
from align_dsl.language.deciders import resolve_decider
from align_dsl.language.extend import extend
from align_dsl.language.library import Library
from align_dsl.language.models import resolve_model
from align_dsl.language.program import (
    Data,
    Decider,
    Model,
    Optimize,
    Place,
    Program,
    Split,
    Vary,
)
from align_dsl.language.schema import PlaceDeclaration, ProgramFile, read
from align_dsl.language.source import Path, Source
from align_dsl.language.space import check_space
from align_dsl.language.targets import resolve_targets
from align_dsl.types import Attribute, Target


@dataclass(frozen=True, slots=True)
class Checked:
    """A program that compiled, with what is needed to talk about it: positions and warnings."""

    program: Program
    source: Source
    warnings: tuple[Diagnostic, ...] = ()
    origins: Mapping[str, Span] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


def resolve(source: Source, library: Library) -> Checked:
    """Compile one program file against a library. Raises CompileError with every mistake."""
    whole = extend(source, lambda name, _: library.source("programs", name))
    declared = read(ProgramFile, whole)
    found = Findings(texts=dict(whole.texts))
    origins: dict[str, Span] = {}

    attributes = resolve_attributes(declared.attributes, whole, library, found)
    targets = resolve_targets(declared.targets, whole, attributes, found) if attributes else ()
    deciders = tuple(
        d
        for name, one in declared.deciders.items()
        if (d := resolve_decider(name, one, whole, library, attributes, found, origins))
    )
    models, run_on = _models(declared, whole, library, found)
    data = _data(declared, whole, library, found)
    optimize = _optimize(declared, whole, data, found)
    tuned = next((d for d in deciders if optimize and d.name == optimize.decider), None)
    if declared.optimize and tuned:
        check_space(declared.optimize, tuned, whole, library, attributes, found)
    for i, name in enumerate(declared.metrics):
        if name not in library.metrics:
            hint = nearest(name, list(library.metrics))
            found.error(whole.at(("metrics", i)), f"no metric named `{name}`", hint)
    if attributes:
        _targets_are_rated(targets, deciders, whole, found, origins)
        _attributes_are_used(declared, attributes, targets, whole, found)
    _samples_can_differ(declared, deciders, models, whole, found, origins)
    found.stop_if_wrong()
    program = Program(
        name=declared.program,
        about=declared.about,
        attributes=tuple(attributes.values()),
        data=data,
        targets=targets,
        deciders=deciders,
        models=tuple(models.values()),
        run_on=run_on,
        metrics=tuple(dict.fromkeys(declared.metrics)),
        optimize=optimize,
        seed=declared.seed,
    )
    return Checked(program, whole, found.warnings, origins, found.texts)


def _models(
    declared: ProgramFile, source: Source, library: Library, found: Findings
) -> tuple[dict[str, Model], tuple[str, ...]]:
    """Every model that is used, and the program's own ones by name."""
    before = len(found.diagnostics)
    if isinstance(declared.model, str):
        wanted = [(declared.model, source.at(("model",)))]
    else:
        wanted = [(m, source.at(("model", i))) for i, m in enumerate(declared.model)]
    run_on = tuple(dict.fromkeys(name for name, _ in wanted))
    wanted += [
        (d.model, source.at(("deciders", name, "model")))
        for name, d in declared.deciders.items()
        if d.model
    ]
    if declared.optimize and declared.optimize.propose:
        span = source.at(("optimize", "propose", "model"))
        wanted.append((declared.optimize.propose.model, span))
    models: dict[str, Model] = {}
    for name, span in wanted:
        if name not in models:
            one = declared.models.get(name)
            at = source.at(("models", name, "use")) if one else span
            models[name] = resolve_model(name, at, declared.models, list(library.backends), found)
    sound = not any(d.severity == "error" for d in found.diagnostics[before:])
    for name in declared.models.keys() - models.keys():
        if sound:  # else its name may be the one that was misspelt
            said = f"nothing uses the model `{name}`"
            found.warn(source.key(("models", name)), said, "name it under `model:`, or delete it")
        resolve_model(
            name, source.at(("models", name, "use")), declared.models, list(library.backends), found
        )
    return models, run_on


def _data(declared: ProgramFile, source: Source, library: Library, found: Findings) -> Data:
    one = declared.data
    if one.split and one.split.train + one.split.test > 1 + 1e-9:
        said = f"the shares add up to {one.split.train + one.split.test:g}, more than 1"
        found.error(source.at(("data", "split")), said, "for instance {train: 0.5, test: 0.5}")
    if one.cases != "all" and one.split is None:
        said = f"`cases: {one.cases}` needs a split"
        hint = "add `split: {train: 0.5, test: 0.5}`"
        found.error(source.at(("data", "cases")), said, hint)
    own = ("data", "exemplars")
    return Data(
        place=_place(one, ("data",), source, library, found),
        cases=one.cases,
        split=Split(**one.split.model_dump()) if one.split else None,
        exemplars=_place(one.exemplars, own, source, library, found) if one.exemplars else None,
    )


def _place(
    one: PlaceDeclaration, at: Path, source: Source, library: Library, found: Findings
) -> Place:
    """A format by its name, hyphens or not, and a path as seen from the file that says it; what the
    command line says, as seen from where one stands."""
    name = one.format.replace("-", "_")
    if name not in library.datasets:
        hint = nearest(name, list(library.datasets))
        found.error(source.at((*at, "format")), f"no data format named `{one.format}`", hint)
    file = source.at((*at, "path")).file
    said_in = FilePath() if file.startswith("--") else FilePath(file).parent
    return Place(format=name, path=str(said_in / one.path))


def _optimize(
    declared: ProgramFile, source: Source, data: Data, found: Findings
) -> Optimize | None:
    one = declared.optimize
    if one is None:
        return None
    if one.decider not in declared.deciders:
        span = source.at(("optimize", "decider"))
        hint = nearest(one.decider, declared.deciders)
        found.error(span, f"no decider named `{one.decider}` in this program", hint)
    if data.split is None:
        hint = "add `split: {train: 0.5, test: 0.5}` to `data:`"
        found.error(source.key(("optimize",)), "optimizing needs a split of the cases", hint)
    elif one.cases == one.accept or "all" in (one.cases, one.accept):
        at = ("optimize", "cases") if ("optimize", "cases") in source.values else ("optimize",)
        said = f"trials would see the `{one.accept}` cases that the winner is judged on"
        found.error(source.at(at), said, "write `cases: train` and `accept: test`")
    if one.objectives[0] != "accuracy" or len({*one.objectives}) < len(one.objectives):
        said = "the first objective is the accuracy, and none stands twice"
        found.error(source.at(("optimize", "objectives")), said, "write [accuracy, tokens]")
    space = {
        name: Vary(values=tuple(v)) if isinstance(v, list) else Vary(**v.model_dump())
        for name, v in one.space.items()
    }
    return Optimize(**one.model_dump(exclude={"space"}), space=space)


def _targets_are_rated(
    targets: tuple[Target, ...],
    deciders: tuple[Decider, ...],
    source: Source,
    found: Findings,
    origins: Mapping[str, Span],
) -> None:
    asked = {name for target in targets for name in target.values}
    for decider in deciders:
        decided_by = set(decider.decide.takes.values())
        raters = [s for s in decider.steps if s.name in decided_by and "attribute" in s.each]
        limits = [s.only for s in raters if s.only is not None]
        if not limits or len(limits) < len(raters):
            continue
        rated = {name for only in limits for name in only}
        for name in sorted(asked - rated):
            said = f"the decider `{decider.name}` never rates `{name}`, which a target asks for"
            hint = f"add it to `only` ({', '.join(sorted(rated))}), or narrow the targets"
            span = source.key(("deciders", decider.name))
            first = next(s for s in raters if s.only is not None)
            found.error(origins.get(f"{decider.name}.{first.name}.only", span), said, hint)


def _attributes_are_used(
    declared: ProgramFile,
    attributes: Mapping[str, Attribute],
    targets: tuple[Target, ...],
    source: Source,
    found: Findings,
) -> None:
    """A whole set may be taken for a part of it; what was named one by one should be used."""
    asked = {name for target in targets for name in target.values}
    if isinstance(declared.attributes, str):
        return
    for i, name in enumerate(declared.attributes):
        single = name.partition(".")[2] or (name if isinstance(declared.attributes, dict) else "")
        if single in attributes and single not in asked:
            at = ("attributes", name if isinstance(declared.attributes, dict) else i)
            said = f"no target asks for the attribute `{single}`"
            found.warn(source.key(at), said, "add a target, or delete it")


def _samples_can_differ(
    declared: ProgramFile,
    deciders: tuple[Decider, ...],
    models: Mapping[str, Model],
    source: Source,
    found: Findings,
    origins: Mapping[str, Span],
) -> None:
    for decider in deciders:
        names = [decider.model] if decider.model else [m for m in models if m in _own(declared)]
        own = ("litellm", "gguf")  # the others answer alike at any temperature
        asked = [models[m] for m in names if models[m].backend in own]
        for step in decider.steps:
            cold = [m.name for m in asked if step.warmth(m) == 0]
            if step.params.get("rating") == "sampled" and step.samples == 1:
                said = (
                    f"`rating: sampled` is the mean of several samples, and `{step.name}` has one"
                )
                at = source.key(("deciders", decider.name))
                span = origins.get(f"{decider.name}.{step.name}.rating", at)
                found.error(span, said, "add `samples:`, or write `rating: verbal`")
            if cold and step.samples > 1 and step.algorithm.calls:
                span = origins.get(f"{decider.name}.{step.name}.samples", source.at(()))
                differ = "differ only by order" if step.order == "shuffle" else "are all alike"
                said = f"{step.samples} samples of `{cold[0]}` at temperature 0 {differ}"
                who = "model" if step.temperature is None else "step"
                hint = f"give the {who} a `temperature:` above 0, or take one sample"
                found.warn(span, said, hint)


def _own(declared: ProgramFile) -> list[str]:
    return [declared.model] if isinstance(declared.model, str) else declared.model
