"""A decider's declaration -> what of it may vary, and the same declaration with other settings.

A setting is named as a person sees it: `shots` is a parameter of the decider, `rate.instructions`
the setting of one of its steps, `decide.norm` that of its aligner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_dsl.errors import CompileError, Findings, Span, nearest
from align_dsl.language.deciders import resolve_decider
from align_dsl.language.extend import extend
from align_dsl.language.library import Library
from align_dsl.language.override import override
from align_dsl.language.program import Decider
from align_dsl.language.schema import DeciderDeclaration, OptimizeDeclaration, RangeDeclaration
from align_dsl.language.signature import Param
from align_dsl.language.source import Path, Source
from align_dsl.types import Attribute

if TYPE_CHECKING:
    from align_dsl.language.program import Step

WORDING = "instructions"  # the setting that `variants:` are for
ORDERS = ("given", "shuffle", "both", "all")


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
    needs: str = ""  # it does nothing while this one is 0


def declaration(
    source: Source, library: Library, name: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The entry of `deciders:` with these settings: no more changed than they need."""
    raw = source.data["deciders"][name]
    shallow = {k: v for k, v in settings.items() if "." not in k}
    deep = {k: v for k, v in settings.items() if "." in k}
    if "use" in raw and not deep:
        return {**raw, "with": {**(raw.get("with") or {}), **shallow}} if shallow else dict(raw)
    body = _body(source, library, name).data
    if "use" in raw:  # what stands inside a shipped decider is changed by extending it
        made = {"extends": raw["use"], **{k: raw[k] for k in ("model", "about") if k in raw}}
        params = {**(raw.get("with") or {}), **shallow}
    else:
        made = dict(raw)
        params = {**(raw.get("params") or {}), **_defaults(raw.get("params") or {}, shallow)}
    if params:
        made["params"] = params
    for written, value in deep.items():
        step, _, setting = written.partition(".")
        if step == "decide":
            made["decide"] = _set(made.get("decide") or body["decide"], setting, value)
            continue
        now = {s["name"]: s for s in [*body["steps"], *(made.get("steps") or [])]}
        others = [s for s in made.get("steps") or [] if s["name"] != step]
        mine = _set(now[step], setting, value)
        # a decider of its own has all its steps here, and their order counts
        places = [s["name"] for s in made.get("steps") or []]
        at = places.index(step) if step in places else len(others)
        made["steps"] = [*others[:at], mine, *others[at:]]
    return made


def _defaults(written: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """New defaults, in the short or the full form in which the old ones stand."""
    return {
        k: {**written[k], "default": v} if isinstance(written.get(k), dict) else v
        for k, v in values.items()
    }


def _set(entry: Mapping[str, Any], setting: str, value: Any) -> dict[str, Any]:
    if setting in ("samples", "order"):
        return {**entry, setting: value}
    return {**entry, "with": {**(entry.get("with") or {}), setting: value}}


def varied(source: Source, library: Library, name: str, settings: Mapping[str, Any]) -> Source:
    """The program with other settings of one decider."""
    made = declaration(source, library, name, settings)
    return override(source, "optimize", ("deciders", name), made)


def tunables(source: Source, library: Library, decider: Decider) -> dict[str, Tunable]:
    """All that may vary in a decider that has been resolved."""
    body = _body(source, library, decider.name).data
    declared = body.get("params") or {}
    goes: dict[str, list[tuple[str, Param]]] = {}
    found: dict[str, Tunable] = {}
    for step, setting, written, param in _settings(body, decider):
        place = f"{step}.{setting}"
        if isinstance(written, str) and written.startswith("$") and written[1:] in decider.params:
            goes.setdefault(written[1:], []).append((place, param))
        else:
            found[place] = _tunable(place, _now(decider, step, setting), [(place, param)], {})
    for name, places in goes.items():
        one = declared.get(name)
        bounds = one if isinstance(one, dict) else {}
        found[name] = _tunable(name, decider.params[name], places, bounds)
    return _with_needs(found)


def _settings(body: Mapping[str, Any], decider: Decider) -> Iterator[tuple[str, str, Any, Param]]:
    """(step, setting, what is written there, what it takes)."""
    for raw in body.get("steps") or []:
        step = decider.step(raw["name"])
        if step.algorithm.calls:
            samples = Param(name="samples", type="int", low=1, high=64)
            yield step.name, "samples", raw.get("samples", 1), samples
            order = Param(name="order", type="str", choices=ORDERS)
            yield step.name, "order", raw.get("order", "shuffle"), order
        for param in step.algorithm.params:
            yield step.name, param.name, (raw.get("with") or {}).get(param.name), param
    settings = (body["decide"].get("with") or {}) if "decide" in body else {}
    for param in decider.decide.aligner.params:
        yield "decide", param.name, settings.get(param.name), param


def _now(decider: Decider, step: str, setting: str) -> Any:
    if step == "decide":
        return decider.decide.params.get(setting)
    found: Step = decider.step(step)
    if setting in ("samples", "order"):
        return getattr(found, setting)
    return found.params.get(setting)


def _tunable(
    name: str, default: Any, places: Sequence[tuple[str, Param]], bounds: Mapping[str, Any]
) -> Tunable:
    """What all the places that a value goes to can take."""
    params = [p for _, p in places]
    lows = [x for x in (*(p.low for p in params), bounds.get("low")) if x is not None]
    highs = [x for x in (*(p.high for p in params), bounds.get("high")) if x is not None]
    sets = [c for c in (*(p.choices for p in params), bounds.get("choices")) if c is not None]
    choices = tuple(c for c in sets[-1] if all(c in s for s in sets)) if sets else None
    return Tunable(
        name=name,
        default=default,
        type=params[0].type,
        low=max(lows) if lows else None,
        high=min(highs) if highs else None,
        choices=choices,
        places=tuple(place for place, _ in places),
    )


def _with_needs(found: dict[str, Tunable]) -> dict[str, Tunable]:
    """How exemplars are picked does not matter while none are picked: `k` rules its step."""
    rules = {p.rpartition(".")[0]: t.name for t in found.values() for p in t.places
             if p.endswith(".k")}  # fmt: skip
    made = {}
    for name, t in found.items():
        ruled = {rules.get(place.rpartition(".")[0], "") for place in t.places}
        ruler = ruled.pop() if len(ruled) == 1 else ""
        if ruler and ruler != name:
            t = Tunable(t.name, t.default, t.type, t.low, t.high, t.choices, t.places, ruler)
        made[name] = t
    return made


def _body(source: Source, library: Library, name: str) -> Source:
    """The decider with all that it uses or extends."""

    def load(wanted: str, _: Source) -> Source:
        return library.source("deciders", wanted)

    raw = source.data["deciders"][name]
    own = library.source("deciders", raw["use"]) if "use" in raw else source.sub(("deciders", name))
    return extend(own, load)


# --- `optimize:` of a program ---------------------------------------------------------------------


def check_space(
    declared: OptimizeDeclaration,
    decider: Decider,
    source: Source,
    library: Library,
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> None:
    """Every name must be a setting, and the decider must compile with every value."""
    known = tunables(source, library, decider)
    for name, written in declared.space.items():
        at: Path = ("optimize", "space", name)
        if name not in known:
            said = f"the decider `{decider.name}` has no setting `{name}`"
            found.error(source.key(at), said, nearest(name, known))
        elif isinstance(written, RangeDeclaration):
            if _range_fits(known[name], written, source, at, found):
                for end in ("low", "high"):
                    value = _number(known[name], getattr(written, end))
                    _try({name: value}, decider, source, (*at, end), library, attributes, found)
        else:
            for i, value in enumerate(written):
                if value in written[:i]:
                    found.error(source.at((*at, i)), f"{value!r} stands here twice", "delete one")
                else:
                    _try({name: value}, decider, source, (*at, i), library, attributes, found)
    for step, texts in declared.variants.items():
        at = ("optimize", "variants", step)
        name = f"{step}.{WORDING}"
        if name not in known:
            has = [s.partition(".")[0] for s in known if s.endswith(f".{WORDING}")]
            said = f"the decider `{decider.name}` has no step `{step}` with {WORDING}"
            found.error(source.key(at), said, nearest(step, has))
            continue
        if name in declared.space:
            hint = "write all of them in one of the two"
            found.error(source.key(at), f"`space` has wordings for `{step}` as well", hint)
        for i, text in enumerate(texts):
            _try({name: text}, decider, source, (*at, i), library, attributes, found)


def _range_fits(
    tunable: Tunable, written: RangeDeclaration, source: Source, at: Path, found: Findings
) -> bool:
    if tunable.type not in ("int", "float"):
        said = f"`{tunable.name}` is no number, so it has no range"
        found.error(source.at(at), said, "list the values to try, as in [one, another]")
        return False
    if written.low > written.high:
        said = f"`low` ({written.low:g}) is above `high` ({written.high:g})"
        found.error(source.at((*at, "low")), said, "swap them")
        return False
    for key in ("low", "high", "step"):
        value = getattr(written, key)
        if tunable.type == "int" and value is not None and value != int(value):
            said = f"`{tunable.name}` takes whole numbers, not {value:g}"
            found.error(source.at((*at, key)), said)
            return False
    if written.log and (written.low <= 0 or written.step is not None):
        said = "`log` needs a `low` above 0 and no `step`"
        found.error(source.at((*at, "log")), said, "delete `log`")
        return False
    return True


def _number(tunable: Tunable, value: float) -> float | int:
    return int(value) if tunable.type == "int" else value


def _try(
    settings: Mapping[str, Any],
    decider: Decider,
    source: Source,
    at: Path,
    library: Library,
    attributes: Mapping[str, Attribute],
    found: Findings,
) -> None:
    """Compile the decider with these settings. Its complaints stand where the values do."""
    span, name = source.at(at), decider.name
    changed = varied(source, library, name, settings)
    place = ("deciders", name)
    for positions in (changed.values, changed.keys):
        positions.update({p: span for p in positions if p[: len(place)] == place})
    trial, origins = Findings(texts=dict(source.texts)), dict[str, Span]()
    try:
        one = DeciderDeclaration.model_validate(changed.data["deciders"][name])
        resolve_decider(name, one, changed, library, attributes, trial, origins)
    except CompileError as error:
        trial.add(error)
    except ValueError:  # of another shape than a declaration has
        found.error(span, f"`{next(iter(settings))}` cannot be {settings!r}")
        return
    for d in trial.diagnostics:
        if d.severity == "error":
            found.error(d.span if d.span.file == span.file else span, d.message, d.hint)
