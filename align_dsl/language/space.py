"""A decider's declaration -> the same with other settings; and `optimize.space`, checked.

How settings are named is said in `tunable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from align_dsl.errors import CompileError, Findings, Span, nearest
from align_dsl.language.asking import written as plain_scale
from align_dsl.language.deciders import resolve_decider
from align_dsl.language.extend import extend
from align_dsl.language.library import Library
from align_dsl.language.override import override
from align_dsl.language.program import Decider
from align_dsl.language.schema import (
    DeciderDeclaration,
    OptimizeDeclaration,
    RangeDeclaration,
    read_part,
)
from align_dsl.language.source import Path, Source
from align_dsl.language.tunable import FIELDS, Tunable, tunables_of
from align_dsl.types import Attribute, Scale

WORDING = "instructions"  # the setting that `variants:` of a step are for


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
        params = {k: _default(v) for k, v in {**(raw.get("with") or {}), **shallow}.items()}
    else:
        made = dict(raw)
        params = {**(raw.get("params") or {}), **_defaults(raw.get("params") or {}, shallow)}
    if params:
        made["params"] = params
    for written, value in deep.items():
        step, _, setting = written.partition(".")
        if step == "decide":
            decide = made.get("decide") or body["decide"]
            made["decide"] = {**decide, "with": _set(decide.get("with") or {}, setting, value)}
            continue
        now = {s["name"]: s for s in [*body["steps"], *(made.get("steps") or [])]}
        others = [s for s in made.get("steps") or [] if s["name"] != step]
        mine = _step_with(now[step], setting, value)
        # a decider of its own has all its steps here, and their order counts
        places = [s["name"] for s in made.get("steps") or []]
        at = places.index(step) if step in places else len(others)
        made["steps"] = [*others[:at], mine, *others[at:]]
    return made


def _defaults(written: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """New defaults, in the short or the full form in which the old ones stand."""
    return {
        k: {**written[k], "default": v} if isinstance(written.get(k), dict) else _default(v)
        for k, v in values.items()
    }


def _default(value: Any) -> Any:
    """A default as `params` has it: a mapping there would be taken for the full form."""
    return {"default": value} if isinstance(value, dict) else value


def _step_with(step: Mapping[str, Any], setting: str, value: Any) -> dict[str, Any]:
    if setting.partition(".")[0] in FIELDS:
        return _set(step, setting, value)
    return {**step, "with": _set(step.get("with") or {}, setting, value)}


def _set(entry: Mapping[str, Any], setting: str, value: Any) -> dict[str, Any]:
    """A mapping with one setting more; `weights.fairness` is an entry of one."""
    name, _, inner = setting.partition(".")
    return {**entry, name: {**(entry.get(name) or {}), inner: value} if inner else value}


def varied(source: Source, library: Library, name: str, settings: Mapping[str, Any]) -> Source:
    """The program with other settings of one decider."""
    made = declaration(source, library, name, settings)
    return override(source, "optimize", ("deciders", name), made)


def tunables(
    source: Source, library: Library, decider: Decider, attributes: Iterable[str]
) -> dict[str, Tunable]:
    """All that may vary in a decider that has been resolved, in a program with these attributes."""
    return tunables_of(_body(source, library, decider.name).data, decider, attributes)


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
    known = tunables(source, library, decider, attributes)
    tried = _Trial(decider, source, library, attributes, found)
    for name, written in declared.space.items():
        at: Path = ("optimize", "space", name)
        if name not in known:
            said = f"the decider `{decider.name}` has no setting `{name}`"
            found.error(source.key(at), said, nearest(name, _alike(name, known)))
        elif isinstance(written, RangeDeclaration):
            if _range_fits(known[name], written, source, at, found):
                for end in ("low", "high"):
                    tried.set(name, _number(known[name], getattr(written, end)), (*at, end))
        else:
            said_before: list[Any] = []
            for i, value in enumerate(written):
                if (one := normal(known[name], value)) in said_before:
                    shown = "this" if isinstance(value, dict) else repr(value)
                    found.error(source.at((*at, i)), f"{shown} stands here twice", "delete one")
                else:
                    tried.set(name, value, (*at, i))
                said_before.append(one)
    for written_for, texts in declared.variants.items():
        at = ("optimize", "variants", written_for)
        name = worded(written_for)
        if name not in known:
            found.error(source.key(at), *_not_worded(written_for, known, decider))
            continue
        if name in declared.space:
            hint = "write all of them in one of the two"
            found.error(source.key(at), f"`space` has wordings for `{written_for}` as well", hint)
        for i, text in enumerate(texts):
            tried.set(name, text, (*at, i))
    if declared.propose and not any(t.settings == {WORDING} for t in known.values()):
        said = f"no step of the decider `{decider.name}` has {WORDING} to be worded anew"
        found.error(source.key(("optimize", "propose")), said, "delete it, or name another decider")


def worded(written_for: str) -> str:
    """The setting that an entry of `variants:` has wordings of.

    >>> worded("rate"), worded("rate.fairness")
    ('rate.instructions', 'rate.definitions.fairness')
    """
    step, _, attribute = written_for.partition(".")
    return f"{step}.definitions.{attribute}" if attribute else f"{step}.{WORDING}"


def normal(tunable: Tunable, value: Any) -> Any:
    """A value in the one form in which equal ones are equal."""
    if tunable.type != "scale" or not isinstance(value, dict):
        return value
    try:
        return plain_scale(Scale.model_validate(value))
    except ValueError:  # not a scale, and complained of as such
        return value


def _alike(name: str, known: Mapping[str, Tunable]) -> list[str]:
    """The names among which the one that was meant may be: parts of a mapping are many."""
    parts = name.split(".")
    inside = [n for n in known if n.split(".")[:-1] == parts[:-1]] if len(parts) > 2 else []
    return inside or [n for n in known if n.count(".") < 2] or list(known)


def _not_worded(
    written_for: str, known: Mapping[str, Tunable], decider: Decider
) -> tuple[str, str]:
    """What to say of an entry of `variants:` that names nothing with words."""
    step, _, attribute = written_for.partition(".")
    defined = [n.split(".") for n in known if ".definitions." in n]
    mine = [n for s, _, n in defined if s == step]
    if attribute and mine:
        said = f"the step `{step}` of `{decider.name}` sees no attribute `{attribute}`"
        return said, nearest(attribute, mine)
    if attribute:
        said = f"the decider `{decider.name}` has no step `{step}` that sees attributes"
        return said, nearest(step, {s for s, *_ in defined})
    has = [s.partition(".")[0] for s in known if s.endswith(f".{WORDING}")]
    said = f"the decider `{decider.name}` has no step `{step}` with {WORDING}"
    return said, nearest(step, has)


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
    return int(value) if tunable.type == "int" or value.is_integer() else value


@dataclass(frozen=True, slots=True)
class _Trial:
    """Compiles a decider with other settings, to see whether it would."""

    decider: Decider
    source: Source
    library: Library
    attributes: Mapping[str, Attribute]
    found: Findings

    def set(self, setting: str, value: Any, at: Path) -> None:
        """One setting; complaints stand where the value does."""
        span, place = self.source.at(at), ("deciders", self.decider.name)
        changed = varied(self.source, self.library, self.decider.name, {setting: value})
        for positions in (changed.values, changed.keys):
            positions.update({p: span for p in positions if p[: len(place)] == place})
        trial, origins = Findings(texts=dict(self.source.texts)), dict[str, Span]()
        try:
            one = read_part(DeciderDeclaration, changed, place, _at(changed, place))
            resolve_decider(
                self.decider.name, one, changed, self.library, self.attributes, trial, origins
            )
        except CompileError as error:
            trial.add(error)
        for d in trial.diagnostics:
            if d.severity == "error":
                there = d.span if d.span.file == span.file else span
                self.found.error(there, d.message, d.hint)


def _at(source: Source, path: Path) -> Any:
    value = source.data
    for part in path:
        value = value[part]
    return value
