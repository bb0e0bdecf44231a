"""A resolved decider -> each of its settings that may vary, and when it matters what it is.

A setting is named as a person sees it: `shots` is a parameter of the decider, `rate.instructions`
the setting of one of its steps, `decide.norm` that of its aligner, `rate.definitions.fairness` one
entry of a mapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from align_dsl.language.asking import OWN, WARMTH, can_say, written
from align_dsl.language.program import Decider, Step
from align_dsl.language.signature import Param

SAMPLES = Param(name="samples", type="int", low=1, high=64)
ORDER = Param(name="order", type="str", choices=("given", "shuffle", "both", "all"))
FIELDS = ("samples", "order", "temperature", "scale", "definitions", "demos")  # not under `with`
ON_REQUEST = ("temperature", "scale", "seed")  # vary where `space` names them, and not else
DRAWN = ("random", "subset")  # ways to select that a seed has a say in


@dataclass(frozen=True, slots=True)
class Where:
    """A condition on another setting: that it is one of some values, or that it is none of them."""

    setting: str
    values: tuple[Any, ...]
    among: bool = True

    def holds(self, value: Any) -> bool:
        return (value in self.values) == self.among

    def __str__(self) -> str:
        said = " or ".join(map(str, self.values))
        return f"{self.setting} is {said}" if self.among else f"{self.setting} is not {said}"


Needs = tuple[tuple[Where, ...], ...]
"""When a setting matters: where of each group of conditions one holds."""


@dataclass(frozen=True, slots=True)
class Tunable:
    """A setting that may vary: its value now, what it may be, and where it goes to."""

    name: str
    default: Any
    type: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    places: tuple[str, ...] = ()  # `recall.k`, each a step and what is set there
    needs: Needs = ()  # it does nothing where these do not hold
    on_request: bool = False  # varies only where `space` names it

    @property
    def settings(self) -> frozenset[str]:
        """What is set, whichever step it is of: `k`, `order`, `definitions`."""
        return frozenset(place.split(".")[1] for place in self.places)

    @property
    def step(self) -> str | None:
        """The step, or `decide`, that all of it is about."""
        steps = {place.partition(".")[0] for place in self.places}
        return steps.pop() if len(steps) == 1 else None

    @property
    def attribute(self) -> str | None:
        """The attribute that an entry of a mapping is about."""
        about = {place.partition(".")[2].partition(".")[2] for place in self.places}
        return about.pop() or None if len(about) == 1 else None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a setting stands: what is written there, what it means now, and what it takes."""

    name: str
    written: Any
    now: Any
    param: Param
    on_request: bool = False


def tunables_of(
    body: Mapping[str, Any], decider: Decider, attributes: Iterable[str]
) -> dict[str, Tunable]:
    """`body` is the decider's declaration, with all that it uses or extends."""
    declared = body.get("params") or {}
    goes: dict[str, list[_Place]] = {}
    found: dict[str, Tunable] = {}
    for place in _places(body, decider, tuple(attributes)):
        name = place.written[1:] if isinstance(place.written, str) else ""
        if name in decider.params and place.written.startswith("$"):
            goes.setdefault(name, []).append(place)
        else:
            found[place.name] = _tunable(place.name, place.now, [place], {})
    for name, places in goes.items():
        one = declared.get(name)
        bounds = one if isinstance(one, dict) else {}
        found[name] = _tunable(name, places[0].now, places, bounds)
    return _with_needs(found, decider)


def _places(
    body: Mapping[str, Any], decider: Decider, attributes: Sequence[str]
) -> Iterator[_Place]:
    for raw in body.get("steps") or []:
        step = decider.step(raw["name"])
        if step.algorithm.calls:
            yield from _of_asking(raw, step, attributes)
        given = raw.get("with") or {}
        for param in step.algorithm.params:
            yield from _of_param(step.name, param, given, step.params, step, attributes)
    decide = decider.decide
    given = (body["decide"].get("with") or {}) if "decide" in body else {}
    for param in decide.aligner.params:
        yield from _of_param("decide", param, given, decide.params, None, attributes)


def _of_asking(raw: Mapping[str, Any], step: Step, attributes: Sequence[str]) -> Iterator[_Place]:
    """The fields of a step itself: how often it asks, in what order, and how."""
    alone = "choice" in step.each  # then no order of choices is seen, as a rule
    yield _Place(f"{step.name}.samples", raw.get("samples", 1), step.samples, SAMPLES)
    yield _Place(f"{step.name}.order", raw.get("order", "shuffle"), step.order, ORDER, alone)
    here = can_say(step)
    if "temperature" in here:
        place = f"{step.name}.temperature"
        yield _Place(place, raw.get("temperature"), step.temperature, WARMTH, True)
    if "scale" in here and not any(demo.answer for demo in step.demos):
        # the numbers of a demo's answer are written on the scale that there is
        param = Param(name="scale", type="scale")
        yield _Place(f"{step.name}.scale", raw.get("scale", OWN), written(step.scale), param, True)
    said = raw.get("definitions") or {}
    if "definitions" in here and isinstance(said, str):
        param = Param(name="definitions", type="definitions")
        yield _Place(f"{step.name}.definitions", said, dict(step.definitions), param, True)
    elif "definitions" in here:
        for name in attributes if step.only is None else step.only:
            param, place = Param(name=name, type="str"), f"{step.name}.definitions.{name}"
            yield _Place(place, said.get(name), step.definitions.get(name), param, True)


def _of_param(
    who: str,
    param: Param,
    given: Mapping[str, Any],
    now: Mapping[str, Any],
    step: Step | None,
    attributes: Sequence[str],
) -> Iterator[_Place]:
    """What is said under `with`."""
    said = given.get(param.name)
    if param.type == "weights" and not isinstance(said, str):
        for name in attributes:
            one, at = Param(name=name, type="float"), f"{who}.{param.name}.{name}"
            counts = (now.get(param.name) or {}).get(name, 1)
            yield _Place(at, (said or {}).get(name), counts, one, True)
        return
    if _picks(param) and step is not None and "attribute" not in step.takes.values():
        # levels are those of an attribute: without one, it is the same as `similar`
        choices = tuple(c for c in param.choices or () if c != "stratified")
        param = param.model_copy(update={"choices": choices})
    asked_for = param.name in ON_REQUEST or param.type == "weights"
    yield _Place(f"{who}.{param.name}", said, now.get(param.name), param, asked_for)


def _tunable(name: str, now: Any, places: Sequence[_Place], bounds: Mapping[str, Any]) -> Tunable:
    """What all the places that a value goes to can take."""
    params = [p.param for p in places]
    lows = [x for x in (*(p.low for p in params), bounds.get("low")) if x is not None]
    highs = [x for x in (*(p.high for p in params), bounds.get("high")) if x is not None]
    sets = [c for c in (*(p.choices for p in params), bounds.get("choices")) if c is not None]
    choices = tuple(c for c in sets[-1] if all(c in s for s in sets)) if sets else None
    # whoever gives a parameter choices or bounds of its own offers them
    offered = any(bounds.get(key) is not None for key in ("low", "high", "choices"))
    return Tunable(
        name=name,
        default=now,
        type=params[0].type,
        low=max(lows) if lows else None,
        high=min(highs) if highs else None,
        choices=choices,
        places=tuple(p.name for p in places),
        on_request=not offered and all(p.on_request for p in places),
    )


# --- when it matters ------------------------------------------------------------------------------


def _with_needs(found: dict[str, Tunable], decider: Decider) -> dict[str, Tunable]:
    """The conditions of each setting, where all the places that it goes to agree on them."""
    named = {place: t.name for t in found.values() for place in t.places}
    ruled: dict[str, list[tuple[Where, ...]]] = {}
    for step in decider.steps:
        for setting, conditions in _rules(step):
            there = tuple(
                replace(c, setting=named[place])
                for c in conditions
                if (place := f"{step.name}.{c.setting}") in named
            )
            if len(there) == len(conditions):
                ruled.setdefault(f"{step.name}.{setting}", []).append(there)
    made = {}
    for name, t in found.items():
        first, *others = (ruled.get(place, []) for place in t.places)
        shared = [c for c in first if all(c in other for other in others)]
        needs = tuple(c for c in shared if name not in {w.setting for w in c})
        made[name] = replace(t, needs=needs)
    return made


def _rules(step: Step) -> Iterator[tuple[str, tuple[Where, ...]]]:
    """(setting, conditions of which one must hold for it to do anything)."""
    params = {p.name: p for p in step.algorithm.params}
    if "k" in params:  # how exemplars are picked does not matter while none are
        for name in params:
            yield name, (Where("k", (0,), among=False),)
    if "select" in params and _picks(params["select"]):
        yield "seed", (Where("select", DRAWN),)
        yield "ids", (Where("select", ("fixed",)),)
    if step.algorithm.calls:
        # asked again in the same order at temperature 0, a model says the same again; but where
        # the file has it asked often, asking less is cheaper
        warm = Where("temperature", (0,), among=False)
        shuffled = () if "choice" in step.each else (Where("order", ("shuffle",)),)
        once = step.samples == 1
        if once:
            yield "samples", (warm, *shuffled)
        if "expected" in ((params["rating"].choices or ()) if "rating" in params else ()):
            # where probabilities are asked for, nothing is drawn
            drawn = Where("rating", ("expected",), among=False)
            if once:
                yield "samples", (drawn, *shuffled)
            yield "temperature", (drawn,)


def _picks(param: Param) -> bool:
    """Whether it says how exemplars are picked, as the setting of `recall` does."""
    return param.name == "select" and {*DRAWN, "fixed"} <= {*(param.choices or ())}
