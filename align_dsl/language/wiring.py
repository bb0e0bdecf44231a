"""The ports of an algorithm or aligner -> where each comes from; every mismatch is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from align_dsl.errors import Span, nearest
from align_dsl.language.library import Unreadable
from align_dsl.language.program import AMBIENT
from align_dsl.language.signature import Port, Signature
from align_dsl.language.source import Path
from align_dsl.language.work import Work
from align_dsl.registry import Registry


def wire(
    work: Work, signature: Signature, takes: Mapping[str, str], at: Path, each: set[str]
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


def _each_has_a_port(work: Work, signature: Signature, takes: Mapping[str, str], at: Path) -> None:
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
    work: Work, port: Port, origin: str, span: Span, takes: Mapping[str, str], at: Path
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


def _way_out(work: Work, port: Port, gives: str, at: Path) -> str:
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
    if not makers and port.name in AMBIENT:
        return f"delete `{port.name}` here: every question brings it along"
    return f"{kind} come from a step that uses {' or '.join(makers)}" if makers else ""


def _that(work: Work, registry: Registry[Any], fits: Callable[[Signature], bool]) -> list[str]:
    names = []
    for name in registry:
        try:
            if fits(work.library.signature(registry, name)):
                names.append(name)
        except Unreadable:  # somebody else's broken plug-in
            continue
    return names
