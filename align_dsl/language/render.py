"""A checked program -> text that says what it means and where each value was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from align_dsl.errors import Span, visible
from align_dsl.language.program import AMBIENT, Decider, Model, Program, Step
from align_dsl.language.resolve import Checked


def render_program(checked: Checked) -> str:
    return "\n".join(_lines(checked)) + "\n"


def _lines(checked: Checked) -> Iterator[str]:
    program = checked.program
    yield f"program {program.name}    {checked.source.file}"
    yield f"  {visible(program.about)}"
    yield f"  digest {program.digest()}, seed {program.seed}"
    yield ""
    yield f"attributes ({len(program.attributes)})"
    width = max(len(a.name) for a in program.attributes)
    for a in program.attributes:
        scale = f"{a.scale.low:g}..{a.scale.high:g} step {a.scale.step:g}"
        yield f"  {a.name:<{width}}  {a.kind:<7}  {scale}"
    yield ""
    yield from _data(program)
    yield ""
    yield f"targets ({len(program.targets)})"
    width = max(len(t.name) for t in program.targets)
    for t in program.targets:
        values = ", ".join(f"{n} {v:g}{_weight(t.weights, n)}" for n, v in t.values.items())
        yield f"  {visible(t.name):<{width}}  {values}"
    yield ""
    yield "models"
    for model in program.models:
        on = "" if model.name in program.run_on else "  (one decider only)"
        yield f"  {visible(model.name)}  {_model(model)}{on}"
    for decider in program.deciders:
        yield ""
        yield from render_decider(decider, checked.origins)
    yield ""
    yield f"metrics: {', '.join(program.metrics)}"
    if program.optimize:
        o = program.optimize
        yield f"optimize: {o.decider}, {o.trials} trials on {o.cases}, judged once on {o.accept}"


def _weight(weights: Mapping[str, float], name: str) -> str:
    return f" x{weights[name]:g}" if name in weights else ""


def _data(program: Program) -> Iterator[str]:
    data = program.data
    yield f"data: {data.place.format}, {visible(data.place.path)}"
    if data.split:
        s = data.split
        yield f"  split by {s.group}: train {s.train:g}, test {s.test:g}, seed {s.seed}"
    yield f"  decides: {data.cases} cases"
    if data.exemplars:
        yield f"  exemplars from: {data.exemplars.format}, {visible(data.exemplars.path)}"
    else:
        where = "these cases" if data.cases == "all" else "the train cases"
        yield f"  exemplars from: {where}, never the one being decided nor one with its text"


def _model(model: Model) -> str:
    said = [model.backend, visible(model.address)] if model.address else [model.backend]
    if model.backend == "litellm":
        said += [f"temperature {model.temperature:g}", f"at most {model.max_tokens} tokens"]
        said += [visible(endpoint) for endpoint in model.endpoints]
        said += [f"context {model.context:,}"] if model.context else []
    return ", ".join(said)


def render_decider(decider: Decider, origins: Mapping[str, Span]) -> Iterator[str]:
    """The steps of a decider, their ports and their settings, each with its origin."""
    yield f"decider {decider.name}" + (f"  on {decider.model}" if decider.model else "")
    yield f"  {visible(decider.about)}"
    for step in decider.steps:
        yield f"  step {step.name}: {step.algorithm.name}    {visible(step.algorithm.about)}"
        yield f"    {_shape(step)}"
        for port in step.algorithm.ports:
            yield f"    {port.name} ({port.type}) <- {_origin(step.takes.get(port.name))}"
        for name, value in _said(step).items():
            yield f"    {name} = {_value(value)}{_where(origins, decider, step.name, name)}"
    decide = decider.decide
    yield f"  decide: {decide.aligner.name}    {visible(decide.aligner.about)}"
    for port in decide.aligner.ports:
        yield f"    {port.name} ({port.type}) <- {_origin(decide.takes.get(port.name))}"
    for name, value in decide.params.items():
        yield f"    {name} = {_value(value)}{_where(origins, decider, 'decide', name)}"


def _said(step: Step) -> dict[str, Any]:
    """The settings of a step: always those of its algorithm, and how often it asks in what order;

    what is seldom said only where it is.
    """
    if not step.algorithm.calls:
        return step.params
    said: dict[str, Any] = {"samples": step.samples, "order": step.order}
    if step.temperature is not None:
        said["temperature"] = f"{step.temperature:g}"
    if step.scale is not None:
        said["scale"] = f"{step.scale.low:g}..{step.scale.high:g} step {step.scale.step:g}"
    if step.definitions:
        said["definitions"] = "; ".join(f"{n}: {about}" for n, about in step.definitions.items())
    if step.demos:
        names = ", ".join(dict.fromkeys(d.case for d in step.demos))
        said["demos"] = f"{len(step.demos)}, from the cases {names}"
    return said | step.params


def _shape(step: Step) -> str:
    per = " and ".join(["scenario", *step.each])
    calls = step.algorithm.calls
    asks = f"{calls} model call{'s' * (calls != 1)}" if calls else "no model"
    shared = "" if "target" in step.takes.values() else "; the same for every target"
    return f"one job per {per}, {asks} each{shared}"


def _origin(origin: str | None) -> str:
    if origin is None:
        return "nothing"
    return origin if origin in AMBIENT else f"step {origin}"


def _value(value: Any) -> str:
    text = visible(str(value)).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:57]}..."


def _where(origins: Mapping[str, Span], decider: Decider, step: str, name: str) -> str:
    span = origins.get(f"{decider.name}.{step}.{name}")
    return f"    ({span})" if span else "    (default)"
