"""What a path such as `deciders.mine.with.shots` leads to in a program, part by part.

A path leads through what is there, or through keys that a program may have. A decider, a model
or an attribute that is not there is set whole: a misspelt name would else make a new one.
"""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel

from align_dsl.errors import CompileError, Diagnostic, Span, nearest
from align_dsl.language.complaint import described
from align_dsl.language.keys import kinds_below, members
from align_dsl.language.schema import (
    AttributeDeclaration,
    DeciderDeclaration,
    ModelDeclaration,
    ProgramFile,
)
from align_dsl.language.source import Path, Source

_WHOLE: dict[Any, str] = {
    DeciderDeclaration: "decider",
    ModelDeclaration: "model",
    AttributeDeclaration: "attribute",
}
_DOTTED = {("optimize", "space"): ("low", "high", "step", "log"), ("optimize", "variants"): ()}


def resolved(source: Source, written: str, span: Span) -> Path:
    """The path as positions and data know it. Raises CompileError, in words about `written`."""
    parts = _parts(written)
    path: Path = ()
    data: Any = source.data
    kinds: list[Any] = [ProgramFile]
    for i, part in enumerate(parts):
        wrong = _wrong(parts, i, data, kinds)
        if wrong is not None:
            raise CompileError([Diagnostic(span, *wrong)], {span.file: ""})
        step: str | int = int(part) if isinstance(data, list) else part
        path = (*path, step)
        kinds = [k for one in kinds for k in kinds_below(one, step)] or [Any]
        if isinstance(data, list):
            data = data[int(part)]
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return path


def _parts(written: str) -> list[str]:
    """Split at dots; what varies is named with dots of its own, as in `optimize.space.rate.k`."""
    parts = [part.strip() for part in written.split(".")]
    tails = _DOTTED.get((parts[0], parts[1])) if len(parts) > 3 else None
    if tails is None:
        return parts
    end = len(parts) - (parts[-1] in tails)
    return [*parts[:2], ".".join(parts[2:end]), *parts[end:]]


def _wrong(parts: list[str], i: int, data: Any, kinds: list[Any]) -> tuple[str, str] | None:
    """What is wrong with part `i` of a path, and the way out."""
    part, before = parts[i], ".".join(parts[:i])
    if not part:
        return "a part of the path is empty", "write KEY=VALUE, for instance --set seed=7"
    if isinstance(data, list):
        return _not_in_list(part, before, data)
    options = [m for kind in kinds for m in members(kind)]
    models = [m for m in options if isinstance(m, type) and issubclass(m, BaseModel)]
    mappings = [m for m in options if typing.get_origin(m) is dict]
    if not models and not mappings and Any not in options:
        said = f"`{before}` holds one value, and nothing below it"
        return said, f"write --set {before}=VALUE"
    if data is not None and not isinstance(data, dict):
        said = f"`{before}` is {described(data)} in this program, and has no `{part}`"
        return said, f"set all of it: --set '{before}={{{part}: ...}}'"
    held = data or {}
    if models and not mappings:
        fields = {f.alias or n for m in models for n, f in m.model_fields.items()}
        if part not in fields and part not in held:
            if part.isdecimal():
                said = f"`{before}` is a mapping in this program, not a list"
                return said, f"leave `{part}` away; known: {', '.join(sorted(fields))}"
            inside = f" in `{before}`" if before else ""
            return f"unknown key `{part}`{inside}", nearest(part, fields)
    if part in held or i == len(parts) - 1:
        return None
    for mapping in mappings:
        if what := _WHOLE.get(typing.get_args(mapping)[1]):
            hint = nearest(part, held)
            if not hint.startswith("did"):
                hint += f"; a new {what} is set whole: --set '{before}.{part}={{...}}'"
            return f"no {what} named `{part}` in this program", hint
    return None


def _not_in_list(part: str, before: str, items: list[Any]) -> tuple[str, str] | None:
    if part.isascii() and part.isdecimal() and int(part) < len(items):
        return None
    said = f"`{before}` is a list of {len(items)}, and `{part}` is none of its items"
    for i, item in enumerate(items):
        if isinstance(item, dict) and item.get("name") == part:
            return said, f"did you mean `{before}.{i}`?"
    if not items:
        return said, f"set it whole: --set '{before}=[...]'"
    return said, f"items go by their number, from 0: {before}.{len(items) - 1} is the last"
