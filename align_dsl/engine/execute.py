"""A plan's jobs -> answers, each asked for at most once. The only stage that calls a model.

Answers go to the store as they come, so a run that is killed loses what was in flight and nothing
else. Jobs are claimed before they are asked, so that two processes on one store share the work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from align_dsl.backends import Backend
from align_dsl.engine.adapter import Unfinished
from align_dsl.engine.budget import UNBOUNDED, Budget
from align_dsl.engine.crew import LOOK_SECONDS, Came
from align_dsl.engine.garbage import left_alone
from align_dsl.engine.inputs import Inputs
from align_dsl.engine.jobs import Jobs
from align_dsl.engine.ledger import AnswerStore as AnswerStore
from align_dsl.engine.ledger import Ledger
from align_dsl.engine.ledger import Progress as Progress
from align_dsl.engine.lower import encode
from align_dsl.engine.plan import Plan, Question
from align_dsl.engine.shift import Shift
from align_dsl.engine.spending import Spending
from align_dsl.engine.stop import Stop as Stop
from align_dsl.errors import BackendError
from align_dsl.records.record import Answer, Cost
from align_dsl.types import Failure

BATCH = 64  # jobs claimed and quick answers written together at most
SAVE_SECONDS = 0.05  # how long a quick answer may wait to be written
TOGETHER_SECONDS = 0.05  # how long an answer that came over the wire may wait for others
PATIENCE = 10.0  # seconds that what is in flight gets to come in, once it has been said to stop


class Quiet:
    """Progress that nobody watches."""

    def begin(self, total: int, known: int) -> None: ...
    def answered(self, answer: Answer) -> None: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """All answers of a plan, which of them this very execution asked for, and what it spent: with
    requests of which nothing came."""

    answers: dict[str, Answer]
    asked: frozenset[str]
    spent: Cost = field(default_factory=Cost)

    def lacks(self, question: Question) -> bool:
        """Whether something a question needs was never asked, because the run ended early."""
        return any(link.key not in self.answers for link in question.links)


class Gone(BackendError):
    """A model cannot be asked any more. Carries what had been answered until then."""

    def __init__(self, said: str, answered: Answered) -> None:
        super().__init__(said)
        self.answered = answered


def execute(
    plan: Plan,
    backends: Mapping[str, Backend],
    store: AnswerStore,
    *,
    progress: Progress | None = None,
    budget: Budget = UNBOUNDED,
    stop: Stop | None = None,
) -> Answered:
    """Every answer of the plan that could be had. `budget` is of this execution alone; what was in
    flight when it was spent comes on top. Raises Gone where a model cannot be asked.

    Sets `stop` with the reason "budget" where the budget ends it, and "gone" where a model does.
    """
    stop = stop if stop is not None else Stop()
    return _Work(plan, backends, Ledger(store, progress or Quiet()), budget, stop).run()


class _Work:
    """What the calling thread does: it hands out jobs, and saves what comes."""

    def __init__(
        self,
        plan: Plan,
        backends: Mapping[str, Backend],
        ledger: Ledger,
        budget: Budget,
        stop: Stop,
    ) -> None:
        self.plan, self.backends, self.ledger, self.stop = plan, backends, ledger, stop
        self.answers = ledger.answers
        self.spending = Spending(budget, stop)
        self.inputs = Inputs(plan, self.answers)
        self.jobs = Jobs(plan, self.inputs, backends, self.spending)

    def run(self) -> Answered:
        todo = self.ledger.open(self.plan.model_jobs)
        broken: BackendError | None = None
        try:
            with left_alone():
                self._work_off(todo)
        except BackendError as error:
            broken = error
        finally:
            self.ledger.close()
        self._answer_plainly()
        answered = Answered(self.answers, frozenset(self.ledger.asked), self.spending.cost)
        if broken is not None or self.spending.gone:
            raise Gone(str(broken or self._obituary()), answered) from broken
        return answered

    def _work_off(self, todo: list[str]) -> None:
        while todo and not self.stop.asked:
            self._ask_all([k for k in todo if self.inputs.are_there(k)])
            todo = [k for k in todo if k not in self.answers]

    def _answer_plainly(self) -> None:
        """What decisions take from steps without a model: computed anew, never stored. Not so
        where what such a step takes was never asked: that is no failure."""
        for question in self.plan.questions:
            for link in question.links:
                if link.key in self.answers or self.plan.jobs[link.key].step.algorithm.calls:
                    continue
                if not self.inputs.are_there(link.key):
                    continue
                output = self.inputs.output(link.key)
                failure = output if isinstance(output, Failure) else None
                said = None if failure else encode(output)
                self.answers[link.key] = Answer(key=link.key, output=said, failure=failure)

    def _obituary(self) -> str:
        last = self.ledger.silent.get(self.spending.gone)
        failure = last[-1].failure if last else None
        why = failure.message if failure else "nobody replies to what it is asked"
        said = f"the model `{self.spending.gone}` answers no more: {why}"
        hint = "see to its server; all answers so far are saved, and the same command goes on"
        return f"{said}\n  = {hint}"

    def _ask_all(self, keys: list[str]) -> None:
        """Claim, ask and store; what another process has claimed is waited for."""
        self._ask_some(keys)
        while self.ledger.elsewhere and not self.stop.asked:
            self._ask_some(self.ledger.look_elsewhere())
            time.sleep(0.1 if self.ledger.elsewhere else 0)

    def _ask_some(self, keys: list[str]) -> None:
        """Ask what can be claimed."""
        by_model: dict[str, list[str]] = {}
        for key in keys:
            by_model.setdefault(self.jobs.model(key), []).append(key)
        for name in [n for n in by_model if self.jobs.is_inline(n)]:
            self._ask_inline(by_model.pop(name))
        if by_model and not self.stop.asked:
            self._ask_pooled(by_model)

    def _ask_inline(self, keys: list[str]) -> None:
        waiting: list[Answer] = []
        saved = time.monotonic()
        try:
            for start in range(0, len(keys), BATCH):
                for key in self.ledger.claimed(keys[start : start + BATCH]):
                    if not self.spending.may_ask():
                        return
                    trail = self.jobs.begin(key)
                    try:
                        waiting.append(self.jobs.ask(key, trail))
                    except Unfinished:
                        continue
                    finally:
                        self.jobs.end(key, trail)
                    # quick answers are saved together, slow ones each at once
                    if len(waiting) >= BATCH or time.monotonic() - saved > SAVE_SECONDS:
                        self.ledger.keep(waiting)
                        waiting, saved = [], time.monotonic()
        finally:
            self.ledger.keep(waiting)

    def _ask_pooled(self, by_model: Mapping[str, list[str]]) -> None:
        """The loop asks, a crew for each model; this thread hands out jobs, and saves answers."""
        heard: _Ear = SimpleQueue()
        shifts = [Shift(self.jobs, keys, heard.put) for keys in by_model.values()]
        self.ledger.silent = {}
        try:
            self._see_through(shifts, heard)
        except BaseException:
            self.stop.now("failed")
            _let_go(shifts)
            self._keep([one for one in _waiting(heard) if isinstance(one, Came)])
            raise
        if not self.stop.asked:  # else it is not known whether they would have been heard
            self.ledger.keep([answer for some in self.ledger.silent.values() for answer in some])

    def _see_through(self, shifts: Sequence[Shift], heard: _Ear) -> None:
        for shift in shifts:
            shift.hand_out(self.ledger.claimed, 0)
            shift.crew.begin()
        workers = sum(shift.crew.workers for shift in shifts)
        wrong: BaseException | None = None
        stopped, saved = None, 0.0
        while workers:
            come = _all_of(heard, saved + TOGETHER_SECONDS)
            saved = time.monotonic()
            for shift in shifts:
                if self.stop.asked:
                    shift.crew.no_more()
                else:
                    shift.hand_out(self.ledger.claimed, len(come))
            self._keep([one for one in come if isinstance(one, Came)])
            workers -= come.count(None)
            for one in come:
                if isinstance(one, BaseException):
                    wrong = wrong or one
                    self.stop.now("failed")
                    _let_go(shifts)
            if self.stop.asked:
                stopped = stopped or time.monotonic()
                _let_go([shift for shift in shifts if shift.model.name == self.spending.gone])
                if self.stop.hurry.is_set() or time.monotonic() - stopped > PATIENCE:
                    _let_go(shifts)
        if wrong is not None:
            raise wrong

    def _keep(self, come: Sequence[Came]) -> None:
        by_model: dict[str, list[Came]] = {}
        for one in come:
            by_model.setdefault(self.jobs.model(one.answer.key), []).append(one)
        heard = [self.ledger.hear(model, some) for model, some in by_model.items()]
        self.ledger.keep([answer for answers in heard for answer in answers])


_Ear = SimpleQueue[Came | BaseException | None]


def _let_go(shifts: Sequence[Shift]) -> None:
    for shift in shifts:
        shift.crew.let_go()


def _all_of(heard: _Ear, until: float) -> list[Came | BaseException | None]:
    """What has come; answers that come quickly are saved together. Nothing, now and then."""
    try:
        come = [heard.get(timeout=LOOK_SECONDS)]
    except Empty:
        return []
    if come[0] is not None:
        time.sleep(max(0.0, until - time.monotonic()))
    return [*come, *_waiting(heard)]


def _waiting(heard: _Ear) -> list[Came | BaseException | None]:
    come: list[Came | BaseException | None] = []
    while not heard.empty():  # nobody else takes from it
        come.append(heard.get())
    return come
