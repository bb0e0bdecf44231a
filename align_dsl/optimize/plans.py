"""Plans of an exam, kept to be used again, and cut into parts after which it is looked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from align_dsl.engine.plan import Plan, Question
from align_dsl.language.program import Program
from align_dsl.types import Pool

LOOK = 8  # groups of cases after which it is looked whether a trial is worth going on with
KEPT = 20_000  # jobs of plans that are kept to be used again, some 20 MB


@dataclass(frozen=True)
class KnownPool(Pool):
    """A pool that many plans share: what it holds is hashed once."""

    known: dict[str | None, str] = field(default_factory=dict)

    def digest(self, attribute: str | None = None) -> str:
        if attribute not in self.known:
            self.known[attribute] = Pool.digest(self, attribute)
        return self.known[attribute]


class Plans:
    """Plans to use again: many configurations ask the same, and only decide otherwise."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, str], Plan] = {}
        self.jobs = 0
        self.last: tuple[Program | None, str] = (None, "")

    def of(self, program: Program, block: int) -> Plan | None:
        made = self.known.get((block, self._asks(program)))
        (decider,) = program.deciders
        if made is None or not made.questions or made.questions[0].decider is decider:
            return made
        return Plan(made.jobs, [replace(q, decider=decider) for q in made.questions], made.asked)

    def keep(self, program: Program, block: int, made: Plan) -> None:
        self.known[block, self._asks(program)] = made
        self.jobs += len(made.jobs)
        while self.jobs > KEPT and len(self.known) > 1:  # the oldest make room
            self.jobs -= len(self.known.pop(next(iter(self.known))).jobs)

    def _asks(self, program: Program) -> str:
        """What a program with one decider asks of which models; not how answers are weighed."""
        if self.last[0] is not program:
            (decider,) = program.deciders
            plain = decider.decide.model_copy(update={"params": {}})
            asking = decider.model_copy(update={"decide": plain, "params": {}})
            said = "\n".join(one.canonical() for one in (asking, *program.models))
            self.last = program, said
        return self.last[1]


def parts_of(todo: Plan) -> list[Plan]:
    """A few whole groups each, in the order of the questions."""
    found: dict[str, list[Question]] = {}
    for q in todo.questions:
        found.setdefault(q.case.group or q.case.scenario.id, []).append(q)
    groups = list(found.values())
    parts = [groups[i : i + LOOK] for i in range(0, len(groups), LOOK)]
    return [todo.only([q for group in part for q in group]) for part in parts]
