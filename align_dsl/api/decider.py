"""One way of deciding, ready to be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from align_dsl import pipeline
from align_dsl.api.memory import Memory
from align_dsl.engine.plan import Plan, plan
from align_dsl.errors import PlanError
from align_dsl.language import program as ir
from align_dsl.types import Case, Choice, Decision, Scenario, Target, digest

if TYPE_CHECKING:
    from align_dsl.api.compiled import Compiled
    from align_dsl.engine.module import DeciderModule

Choices = Sequence[str] | Mapping[str, str]
Aim = Mapping[str, float | str] | Target | str


class Decider:
    """A way of deciding, ready to be called. Remembers what its models have answered."""

    def __init__(self, compiled: Compiled, decider: ir.Decider) -> None:
        self._compiled, self.ir = compiled, decider
        self._memory = Memory()

    @property
    def name(self) -> str:
        return self.ir.name

    @property
    def about(self) -> str:
        return self.ir.about

    def __repr__(self) -> str:
        return f"<decider {self.name}: {self.about}>"

    def __call__(
        self,
        scenario: str | Scenario,
        choices: Choices = (),
        target: Aim | None = None,
        *,
        model: str | None = None,
    ) -> Decision:
        """Decide one scenario. What cannot be answered is a failure in the Decision.

        Choices without ids get the letters A, B, C for ids, in the order given. Exemplars are
        those of the program's pool, and never the scenario itself.
        """
        from align_dsl.engine.decide import decide_one
        from align_dsl.engine.execute import execute

        todo = self._plan(scenario, choices, target, model)
        used, backend = self._compiled.model_for(self.ir, model)
        answered = execute(todo, {used.name: backend}, self._memory.of_call())
        return decide_one(todo.questions[0], answered.answers, seed=self._compiled.program.seed)

    @cached_property
    def module(self) -> DeciderModule:
        """The whole decider as one `dspy.Module`. Changing it leaves the decider as it is."""
        from align_dsl.engine.module import DeciderModule, Setting

        compiled = self._compiled
        used, backend = compiled.model_for(self.ir, None)
        attributes = {a.name: a for a in compiled.program.attributes}
        setting = Setting(
            decider=self.ir,
            model=used.name,
            attributes=attributes,
            backend=backend,
            seed=compiled.program.seed,
            plan=lambda s, c, t: self._plan(s, c, t, None),
        )
        return DeciderModule(setting)

    @property
    def lm(self) -> Any:
        """The LM of the decider's model, for DSPy tools that want one."""
        return self._compiled.model_for(self.ir, None)[1].lm

    def _plan(
        self, scenario: str | Scenario, choices: Choices, target: Aim | None, model: str | None
    ) -> Plan:
        """The jobs of one question."""
        compiled = self._compiled
        used, backend = compiled.model_for(self.ir, model)
        aim = compiled.target_for(target)
        self._can_decide(aim)
        program = compiled.program.model_copy(
            update={
                "deciders": (self.ir.model_copy(update={"model": used.name}),),
                "models": (used,),
            }
        )
        return plan(
            program,
            [Case(scenario=_scenario(scenario, choices))],
            [aim],
            compiled.pool,
            fingerprints={used.name: backend.fingerprint()},
            prompts=pipeline.prompts_version(),
        )

    def _can_decide(self, aim: Target) -> None:
        if any(step.algorithm.learns for step in self.ir.steps):
            raise PlanError(f"`{self.name}` decides from labels, and a bare scenario has none")
        asks = [o for step in self.ir.steps for o in (*step.each, *step.takes.values())]
        asks += self.ir.decide.takes.values()
        if not aim.values and {"target", "attribute", "attributes"} & set(asks):
            options = ", ".join(a.name for a in self._compiled.program.attributes)
            raise PlanError(f"`{self.name}` needs a target on one of: {options}")


def _scenario(scenario: str | Scenario, choices: Choices) -> Scenario:
    if isinstance(scenario, Scenario):
        return scenario
    from align_dsl.engine.module import choice_texts

    offered = tuple(Choice(id=i, text=t) for i, t in choice_texts(choices))
    if not offered:
        raise PlanError("the scenario offers no choices")
    return Scenario(id=digest(scenario)[:12], text=scenario, choices=offered)


def correct(example: Any, prediction: Any, trace: Any = None) -> bool:
    """A metric for DSPy optimizers: whether the labels agree with the choice."""
    return prediction.choice in example.right
