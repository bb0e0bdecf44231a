"""`extends:` one file from another. The result remembers which file each value came from.

The child replaces whole keys; `steps`, `deciders`, `models` and `params` are replaced entry by
entry, by name. There is no deeper merge, so what one entry says is always readable in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from align_dsl.errors import CompileError, Diagnostic, Span
from align_dsl.language.source import Path, Source

BY_NAME = ("steps", "deciders", "models", "params")
OWN = ("version", "program", "decider")  # what a file says of itself; never inherited
MAX_CHAIN = 16


def extend(
    source: Source, load: Callable[[str, Source], Source], chain: tuple[str, ...] = ()
) -> Source:
    """Follow `extends:` until there is none. `load` finds a file by the name it is given."""
    name = source.data.get("extends") if isinstance(source.data, dict) else None
    if not isinstance(name, str):  # absent, or of a wrong type that `read` will complain of
        return source
    span = source.at(("extends",))
    try:
        parent = load(name, source)
    except CompileError as error:
        if not error.texts:  # the file is not there: say so where it was named
            raise CompileError(_moved(error, span, name), source.texts) from None
        raise
    here = chain or (source.file,)
    if parent.file in here:
        loop = " -> ".join((*here, parent.file))
        said = f"files extend each other in a circle: {loop}"
        raise CompileError([Diagnostic(span, said, f"delete `extends: {name}` here")], source.texts)
    if len(here) > MAX_CHAIN:
        said = f"more than {MAX_CHAIN} files extend each other in a row"
        raise CompileError([Diagnostic(span, said, "extend one that says more")], source.texts)
    return _merge(extend(parent, load, (*here, parent.file)), source)


def _moved(error: CompileError, span: Span, name: str) -> list[Diagnostic]:
    said = f"cannot extend `{name}`: {error.diagnostics[0].message}"
    return [Diagnostic(span, said, error.diagnostics[0].hint)]


def _merge(parent: Source, child: Source) -> Source:
    merged = Source(child.file, {**parent.texts, **child.texts}, {}, {(): child.values[()]}, {})
    mine: dict[str, Any] = parent.data if isinstance(parent.data, dict) else {}
    for key in [*mine, *(k for k in child.data if k not in mine)]:
        if key == "extends" or (key in OWN and key not in child.data):
            continue
        old, new = mine.get(key), child.data.get(key)
        if key in BY_NAME and isinstance(old, dict) and isinstance(new, dict):
            _open(merged, key, {}, child)
            for name in [*old, *(n for n in new if n not in old)]:
                _copy(merged, (key, name), child if name in new else parent, (key, name))
        elif key in BY_NAME and isinstance(old, list) and isinstance(new, list):
            _open(merged, key, [], child)
            for i, (origin, at) in enumerate(_steps(parent, child, key)):
                _copy(merged, (key, i), origin, (key, at))
        else:
            _copy(merged, (key,), child if key in child.data else parent, (key,))
    return merged


def _steps(parent: Source, child: Source, key: str) -> list[tuple[Source, int]]:
    """Each step once, in the parent's order; those of the child replace their namesakes.

    Two of one name in the same file both stay, so that the mistake is found where names matter.
    """
    found: dict[str, tuple[Source, int]] = {}
    for source in (parent, child):
        mine: set[str] = set()
        for i, step in enumerate(source.data[key]):
            name = str(step.get("name") if isinstance(step, dict) else "")
            found[f"{source.file}/{i}" if not name or name in mine else name] = (source, i)
            mine.add(name)
    return list(found.values())


def _open(merged: Source, key: str, empty: Any, origin: Source) -> None:
    merged.data[key] = empty
    merged.values[key,] = origin.values[key,]
    merged.keys[key,] = origin.keys[key,]


def _copy(merged: Source, to: Path, origin: Source, at: Path) -> None:
    value = origin.data
    for part in at:
        value = value[part]
    holder = merged.data
    for part in to[:-1]:
        holder = holder[part]
    if isinstance(holder, list):
        holder.append(value)
    else:
        holder[to[-1]] = value
    n = len(at)
    merged.values.update({to + p[n:]: s for p, s in origin.values.items() if p[:n] == at})
    merged.keys.update({to + p[n:]: s for p, s in origin.keys.items() if p[:n] == at})
