"""The looks at test cases: what was compared on which of them, a line each beside the store.

Who looks often finds something by luck. So every look is counted, by the content of the cases and
of what is compared, and has to be surer than the one before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from align_dsl import pipeline
from align_dsl.language.program import Program
from align_dsl.optimize.aims import Aims
from align_dsl.optimize.task import Ready
from align_dsl.types import digest

SHARED = 0.5  # of their cases, from which on two sets of test cases count as the same


def level(look: int, whole: float = 0.05) -> float:
    """What p may be at this look. All looks together stay below twice the whole, however many."""
    return whole * 2 / (look * (look + 1))


def file_of(made: Ready) -> Path:
    return made.task.store.parent / "looks.jsonl"


def looks(file: Path, split: str, cases: Collection[str] = ()) -> list[dict[str, Any]]:
    """Every look so far at these test cases, or at half of them and more; the oldest first.

    Where `cases` are not known, they are those of a look at the same split. What older versions
    wrote names no cases, and counts where the split is the same.
    """
    lines = list(_lines(file))
    mine = {*cases} or {c for one in lines if one.get("split") == split for c in _cases(one)}
    return [one for one in lines if one.get("split") == split or _is_shared(mine, _cases(one))]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Half a line, at the end or where somebody died, is none."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict):
            yield one


def _cases(look: Mapping[str, Any]) -> set[str]:
    said = look.get("cases")
    return {str(one) for one in said} if isinstance(said, list) else set()


def _is_shared(some: set[str], others: set[str]) -> bool:
    """Half of the smaller set: what lies within another has been seen with it."""
    least = min(len(some), len(others))
    return bool(least) and len(some & others) >= SHARED * least


def cases_of(made: Ready) -> list[str]:
    """The test cases one by one, by what they say: another split may have some of them."""
    cases = (c for block in made.test.blocks for c in block)
    return sorted({digest(c.scenario.content())[:12] for c in cases})


# --- what is compared -----------------------------------------------------------------------------


def pair_of(made: Ready, winner: Mapping[str, Any]) -> str:
    """Both programs by all that their answers depend on, and what makes one the better. Other names
    and another `about` make no further look; another model, seed or target does."""
    said = [_content(made, made.space.program(c)) for c in (made.space.default, dict(winner))]
    said += [pool.digest() for pool in made.test.pools]
    said += sorted(b.fingerprint() for b in made.backends.values())
    said.append(pipeline.prompts_version())
    if made.aims != Aims():
        said.append(f"{made.aims!r} {made.optimize.tolerance:g}")
    return digest("\n".join(said))


def _content(made: Ready, program: Program) -> str:
    (decider,) = program.deciders
    plain = decider.model_copy(update={"name": "", "about": "", "model": None})
    named = {name for t in program.targets for name in t.values}
    return "\n".join(
        [
            plain.canonical(),
            *(m.identity() for m in program.models if m.name in made.backends),
            *sorted(t.model_copy(update={"name": ""}).canonical() for t in program.targets),
            *sorted(a.canonical() for a in program.attributes if a.name in named),
            str(program.seed),
        ]
    )


# --- writing it down ------------------------------------------------------------------------------


def write(file: Path, look: Mapping[str, Any]) -> None:
    """One line, whole and on the disk, whoever else writes."""
    line = json.dumps(look, ensure_ascii=False, sort_keys=True)
    handle = os.open(file, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, (("\n" if torn else "") + line + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)
