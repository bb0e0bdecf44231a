"""Which kind of file a file is, told by its naming key; and what to say where it is another."""

from __future__ import annotations

from collections.abc import Iterable

from align_dsl.errors import CompileError, Diagnostic, nearest
from align_dsl.language.library import Library
from align_dsl.language.schema import KINDS
from align_dsl.language.source import Source, no_colon

_MARKS = {"program": "program", "attributes": "set", "decider": "decider"}
_KNOWN = frozenset(name for kind in KINDS.values() for name in kind.model_fields)


def kind_of(source: Source) -> str:
    """Raises CompileError where a file does not say what it is."""
    data = source.data if isinstance(source.data, dict) else {}
    for kind, mark in _MARKS.items():
        if mark in data:
            return kind
    span = source.at(())
    hint = "a program has `program:`, attributes have `set:`, a decider has `decider:`"
    for key in _misspelt(data):
        span, hint = source.key((key,)), nearest(key, _MARKS.values())
        break
    said = "this file does not say what it is"
    if isinstance(source.data, list):
        said, hint = "a file is one mapping, not a list", "delete the `- ` in front of its keys"
    if isinstance(source.data, str):
        lines = source.texts.get(source.file, "").splitlines()[span.line - 1 :]
        said, hint = no_colon(next(iter(lines), source.data))
    raise CompileError([Diagnostic(span, said, hint)], source.texts)


def is_foreign(source: Source) -> bool:
    """Whether a file is of another program, or of targets, which are checked where they are named.

    A file that lacks its naming key is told by its other keys.
    """
    data = source.data
    if isinstance(data, str):
        return False
    if not isinstance(data, dict) or "values" in data or "kdma_values" in data:
        return True
    return not _misspelt(data) and len(_KNOWN & data.keys()) < 2


def _misspelt(data: Iterable[str]) -> list[str]:
    """The keys that may have been meant as a naming key."""
    unknown = [key for key in data if key not in _KNOWN]
    return [key for key in unknown if nearest(key, _MARKS.values()).startswith("did")]


def expect_program(source: Source, library: Library) -> None:
    """Raises CompileError for a file that is something else."""
    data = source.data if isinstance(source.data, dict) else {}
    if "program" in data or "extends" in data:
        return
    if "set" in data:
        mark, said = "set", "this is a set of attributes, not a program"
        hint = f"a program takes it by `attributes: {data['set']}`"
    elif "decider" in data:
        mark, said = "decider", "this is a decider, not a program"
        hint = f"a program takes it by `deciders: {{mine: {{use: {data['decider']}}}}}`"
    elif is_foreign(source) or not data:
        kind_of(source)
        return
    else:  # the shape of a program, so its mistakes are those of a program
        return
    if names := library.names("programs"):
        hint += f"; a program is for instance {' or '.join(names[:2])}"
    raise CompileError([Diagnostic(source.key((mark,)), said, hint)], source.texts)
