"""`attributes:` of a program, or a file of them -> the attributes, each checked against itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from align_dsl.errors import CompileError, Findings, Span, nearest
from align_dsl.language.library import Library
from align_dsl.language.schema import (
    AttributeDeclaration,
    AttributesFile,
    ScaleDeclaration,
    read,
)
from align_dsl.language.source import Path, Source
from align_dsl.types import Attribute, Scale


def resolve_attributes(
    declared: str | list[str] | dict[str, AttributeDeclaration],
    source: Source,
    library: Library,
    found: Findings,
) -> dict[str, Attribute]:
    """Name -> attribute, in the order written. Complains into `found`."""
    at: Path = ("attributes",)
    if isinstance(declared, dict):
        own = build(declared, source, at, found)
        check_names(own, _written(source), found)
        return own
    if isinstance(declared, str):
        wanted = [(declared, source.at(at))]
    else:
        wanted = [(name, source.at((*at, i))) for i, name in enumerate(declared)]
    attributes: dict[str, Attribute] = {}
    spans: dict[str, Span] = {}
    for name, span in wanted:
        for attribute in _from_library(name, span, library, found):
            if attribute.name in attributes:
                said = f"the attribute `{attribute.name}` comes in twice"
                found.error(span, said, "name single attributes, such as `mta.fairness`")
            attributes[attribute.name] = attribute
            spans.setdefault(attribute.name, span)
    check_names(attributes, lambda attribute, _: spans[attribute], found)
    return attributes


def read_attributes(source: Source, found: Findings) -> dict[str, Attribute]:
    """A whole attributes file."""
    declared = read(AttributesFile, source)
    attributes = build(declared.attributes, source, ("attributes",), found)
    check_names(attributes, _written(source), found)
    return attributes


def _from_library(name: str, span: Span, library: Library, found: Findings) -> list[Attribute]:
    set_name, _, single = name.partition(".") if not name.endswith(".yaml") else (name, "", "")
    try:
        source = library.source("attributes", set_name)
    except CompileError as error:
        if error.texts:
            found.add(error)
        else:
            wrong = error.diagnostics[0]
            found.error(span, wrong.message, _where(name, library) or wrong.hint)
        return []
    found.texts.update(source.texts)
    try:
        attributes = read_attributes(source, found)
    except CompileError as error:
        found.add(error)
        return []
    if not single:
        return list(attributes.values())
    if single not in attributes:
        said = f"the set `{set_name}` has no attribute `{single}`"
        found.error(span, said, nearest(single, attributes))
        return []
    return [attributes[single]]


def _where(name: str, library: Library) -> str:
    """The sets that an attribute is in, for someone who named the attribute alone."""
    having = []
    for set_name in library.names("attributes"):
        try:
            data = library.source("attributes", set_name).data
        except CompileError:  # not our business here: nobody asked for that set
            continue
        inside = data.get("attributes") if isinstance(data, dict) else None
        if isinstance(inside, dict) and name in inside:
            having.append(f"`{set_name}.{name}`")
    return f"an attribute is named with its set: {' or '.join(having)}" if having else ""


def build(
    declared: Mapping[str, AttributeDeclaration], source: Source, at: Path, found: Findings
) -> dict[str, Attribute]:
    return {
        name: _attribute(name, one, source, (*at, name), found) for name, one in declared.items()
    }


def _attribute(
    name: str, one: AttributeDeclaration, source: Source, at: Path, found: Findings
) -> Attribute:
    scale = Scale()
    if one.scale is not None:
        scale = sound_scale(one.scale, lambda key: source.at((*at, "scale", key)), found)
    anchors: list[tuple[float, str]] = []
    for written, sentence in one.anchors.items():
        number = float(written)
        if not scale.low <= number <= scale.high:
            said = f"the anchor {written} is off the scale {scale.low:g}..{scale.high:g}"
            found.error(source.key((*at, "anchors", written)), said, "move it onto the scale")
        if any(number == other for other, _ in anchors):
            said = f"there are two anchors for {number:g}"
            found.error(source.key((*at, "anchors", written)), said, "delete one of them")
        anchors.append((number, sentence))
    return Attribute(
        name=name,
        title=one.title or name.replace("_", " "),
        about=one.about,
        high=one.high,
        low=one.low,
        kind=one.kind,
        aliases=tuple(one.aliases),
        includes=tuple(one.includes),
        excludes=tuple(one.excludes),
        scale=scale,
        anchors=tuple(sorted(anchors)),
    )


def sound_scale(one: ScaleDeclaration, place: Callable[[str], Span], found: Findings) -> Scale:
    """A scale as declared; complains of one that has no room or uneven steps."""
    scale = Scale(low=one.low, high=one.high, step=one.step)
    if scale.low >= scale.high:
        said = f"the scale's `low` ({scale.low:g}) is not below its `high` ({scale.high:g})"
        hint = "swap them" if scale.low > scale.high else "give it room: {low: 0, high: 10}"
        found.error(place("low"), said, hint)
        return Scale()
    if not math.isfinite(scale.high - scale.low):
        found.error(place("high"), "the scale is too wide to be kept", "take smaller numbers")
        return Scale()
    if scale.step <= 0 or not _fits(scale.low, scale.high, scale.step):
        said = f"steps of {scale.step:g} do not lead from {scale.low:g} to {scale.high:g}"
        hint = f"it must divide the scale evenly: `step: {(scale.high - scale.low) / 10:g}`"
        found.error(place("step"), said, hint)
        return Scale()
    return scale


def _fits(low: float, high: float, step: float) -> bool:
    steps = (high - low) / step
    if steps > 200_000:
        return False
    return abs(steps - round(steps)) < 1e-9 and round(steps) <= 100_000


def check_names(
    attributes: Mapping[str, Attribute], place: Callable[[str, str], Span], found: Findings
) -> None:
    """No name or alias may mean two attributes: labels are looked up by either.

    `place` says where an attribute has a name from.
    """
    owner = {name: name for name in attributes}
    for attribute in attributes.values():
        for name in dict.fromkeys((attribute.name, *attribute.aliases)):
            if owner.setdefault(name, attribute.name) != attribute.name:
                said = f"`{name}` means both `{owner[name]}` and `{attribute.name}`"
                hint = "drop one of the two, or the alias"
                found.error(place(attribute.name, name), said, hint)


def _written(source: Source) -> Callable[[str, str], Span]:
    """Where the attributes of this very file have their names and aliases."""

    def place(attribute: str, name: str) -> Span:
        at: Path = ("attributes", attribute)
        aliases = source.data["attributes"][attribute].get("aliases") or []
        if name in aliases:
            return source.at((*at, "aliases", aliases.index(name)))
        return source.key(at)

    return place


def by_any_name(attributes: Mapping[str, Attribute]) -> dict[str, str]:
    """Every name and alias, in every usual spelling -> the attribute's own name."""
    names: dict[str, str] = {}
    for attribute in attributes.values():
        for alias in (*attribute.aliases, attribute.name):
            names[alias] = attribute.name
            names.setdefault(alias.lower(), attribute.name)
    return names
