"""What a configuration got wrong on the train cases, and what would have been right, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from align_dsl.engine.execute import Stop
from align_dsl.language.wording import letter, stance
from align_dsl.optimize.exam import Exam
from align_dsl.optimize.purse import Purse
from align_dsl.optimize.space import Config
from align_dsl.types import Attribute, Case, Decision, Target

LONGEST = 600  # characters of a situation or a choice; what is longer is cut


@dataclass(frozen=True, slots=True)
class Mistake:
    """A case that was decided otherwise than its labels say."""

    case: Case
    target: Target
    decision: Decision
    right: frozenset[str]

    def told(self, attributes: Sequence[Attribute]) -> str:
        """Choices go by letters, in the order of the file; all numbers are from 0 to 1."""
        scenario = self.case.scenario
        letters = {c.id: letter(i) for i, c in enumerate(scenario.choices)}
        lines = [f"Situation: {_cut(scenario.text)}"]
        lines += [f"{letters[c.id]}. {_cut(c.text)}" for c in scenario.choices]
        titles = {a.name: a.title for a in attributes}
        for name, value in self.target.values.items():
            labels = {letters[i]: by[name] for i, by in self.case.labels.items() if name in by}
            rated = {letters[r.choice]: r.value for r in self.decision.ratings
                     if r.attribute == name and r.choice in letters}  # fmt: skip
            said = f"{titles.get(name, name)}: the person stands {stance(value)}."
            said += f" People rate {_numbers(labels)}."
            lines.append(said + (f" The model rated {_numbers(rated)}." if rated else ""))
        chosen = self.decision.choice
        took = letters[chosen] if chosen else f"nothing ({_cut(self.decision.why)})"
        lines.append(
            f"Chosen: {took}. Right: {' or '.join(sorted(letters[i] for i in self.right))}."
        )
        return "\n".join(lines)


def mistakes(
    exam: Exam, config: Config, *, purse: Purse | None = None, stop: Stop | None = None
) -> list[Mistake]:
    """All of them. Raises Interrupted."""
    found = list[Mistake]()
    targets = {t.name: t for t in exam.space.checked.program.targets}
    for block, cases in enumerate(exam.blocks):
        decided, _ = exam.decided(config, block, purse=purse, stop=stop)
        by_id = {c.scenario.id: c for c in cases}
        for one in decided:
            right = exam.right[one.scenario, one.target]
            if one.choice not in right:
                case = by_id[one.scenario]
                found.append(Mistake(case, targets[one.target], one, right))
    return found


def some(found: Sequence[Mistake], n: int) -> list[Mistake]:
    """A few that differ: of all targets in turn, and of each case one."""
    kept: dict[str, Mistake] = {}
    for one in _in_turn(found):
        if len(kept) < n:
            kept.setdefault(one.case.scenario.id, one)
    return list(kept.values())


def _in_turn(found: Sequence[Mistake]) -> Iterator[Mistake]:
    by: dict[str, list[Mistake]] = {}
    for one in found:
        by.setdefault(one.target.name, []).append(one)
    for row in zip_longest(*by.values()):
        yield from (one for one in row if one is not None)


def _numbers(rated: dict[str, float]) -> str:
    return ", ".join(f"{who} {value:.2g}" for who, value in sorted(rated.items())) or "none"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
