"""Train and test cases -> an error where the test would ask what was taught."""

from __future__ import annotations

from collections.abc import Sequence

from align_dsl.errors import CompileError, Diagnostic
from align_dsl.pipeline import Loaded
from align_dsl.types import Case


def nothing_leaks(
    loaded: Loaded, train: Sequence[Case], test: Sequence[Case], own: Sequence[Case] | None
) -> None:
    """No text and no group may stand on both sides: the test would ask what was taught."""
    source = loaded.checked.source
    span = source.at(("data", "split"))
    demos = {d.case for one in loaded.program.deciders for s in one.steps for d in s.demos}
    shown = [c for c in loaded.cases if c.scenario.id in demos]
    for name, cases in (("train", train), ("exemplars", own or ()), ("demo", shown)):
        texts = {_text(c): c.scenario.id for c in cases}
        groups = {c.group: c.scenario.id for c in cases if c.group}
        for case in test:
            twin = texts.get(_text(case))
            what = "the same text"
            if twin is None and case.group:
                twin, what = groups.get(case.group), f"the group `{case.group}`"
            if twin is not None:
                said = (
                    f"the {name} case `{twin}` and the test case `{case.scenario.id}` have {what}"
                )
                hint = "split by group (`group: group`), and give cases of one text one group"
                raise CompileError([Diagnostic(span, said, hint)], loaded.checked.texts)


def _text(case: Case) -> str:
    return " ".join(case.scenario.text.split())
