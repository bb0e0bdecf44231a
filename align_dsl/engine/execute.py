"""A plan's jobs -> answers, each asked for at most once. The only stage that calls a model.

Answers go to the store as they come, so a run that is killed loses what was in flight and nothing
else. Jobs are claimed before they are asked, so that two processes on one store share the work.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

from align_dsl.backends import Backend
from align_dsl.engine.ask import ask
from align_dsl.engine.inputs import Inputs
from align_dsl.engine.line import Line, Prefix
from align_dsl.engine.lower import encode
from align_dsl.engine.plan import Plan, Question
from align_dsl.errors import BackendError
from align_dsl.records.owner import is_dead, owner
from align_dsl.records.record import Answer
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Failure

CLAIM_SECONDS = 60.0  # how long a claim outlives the process that made it
BATCH = 64  # jobs claimed and quick answers written together at most
SAVE_SECONDS = 0.05  # how long a quick answer may wait to be written
TOGETHER_SECONDS = 0.05  # how long an answer that came over the wire may wait for others
SILENCE = 24  # requests in a row without any reply, after which a run is given up
PATIENCE = 10.0  # seconds that what is in flight gets to come in, once it has been said to stop
LOOK_SECONDS = 0.2  # how often it is looked whether to stop


class AnswerStore(Protocol):
    """What execution needs of the store."""

    def known(self, keys: Iterable[str]) -> dict[str, Answer]: ...
    def put(self, answers: Sequence[Answer]) -> None: ...
    def claim(self, keys: Iterable[str], owner: str, seconds: float) -> set[str]: ...
    def renew(self, owner: str, seconds: float) -> None: ...
    def release(self, owner: str) -> None: ...
    def bury(self, is_dead: Callable[[str], bool]) -> None: ...


class Progress(Protocol):
    """Who wants to know how far it is."""

    def begin(self, total: int, known: int) -> None: ...
    def answered(self, answer: Answer) -> None: ...


class Quiet:
    """Progress that nobody watches."""

    def begin(self, total: int, known: int) -> None: ...
    def answered(self, answer: Answer) -> None: ...


@dataclass(slots=True)
class Stop:
    """Set from outside to end a run early; what is in flight is still kept."""

    event: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)  # not even that: at once
    reason: str = ""

    def now(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.event.set()

    @property
    def asked(self) -> bool:
        return self.event.is_set()


@dataclass(frozen=True, slots=True)
class Answered:
    """All answers of a plan, and which of them this very execution asked for."""

    answers: dict[str, Answer]
    asked: frozenset[str]

    def lacks(self, question: Question) -> bool:
        """Whether something a question needs was never asked, because the run ended early."""
        links = (link for links in question.takes.values() for link in links)
        return any(link.key not in self.answers for link in links)


def execute(
    plan: Plan,
    backends: Mapping[str, Backend],
    store: AnswerStore,
    *,
    progress: Progress | None = None,
    budget: int | None = None,
    tokens: int | None = None,
    stop: Stop | None = None,
) -> Answered:
    """Every answer of the plan that could be had. `budget` bounds the calls of this execution,
    `tokens` what they read and write; what was in flight when they were spent comes on top.

    Sets `stop` with the reason "budget" where the budget ends it.
    """
    work = _Work(
        plan,
        backends,
        store,
        progress or Quiet(),
        (budget, tokens),
        stop if stop is not None else Stop(),
    )
    return work.run()


class _Work:
    def __init__(
        self,
        plan: Plan,
        backends: Mapping[str, Backend],
        store: AnswerStore,
        progress: Progress,
        budget: tuple[int | None, int | None],
        stop: Stop,
    ) -> None:
        self.plan, self.backends, self.store = plan, backends, store
        self.progress, self.stop = progress, stop
        self.most_calls, self.most_tokens = budget
        self.owner = owner()
        self.answers: dict[str, Answer] = {}
        self.asked: set[str] = set()
        self.calls = self.tokens = 0
        self.silent: list[Answer] = []  # the last in a row to which nobody answered
        self.unheard = 0  # requests in a row without any reply
        self.most_unheard = max(
            SILENCE, 2 * max((b.concurrency for b in backends.values()), default=1)
        )
        self.renewed = time.monotonic()

    def run(self) -> Answered:
        wanted = self.plan.model_jobs
        self.answers = self.store.known(wanted)
        self.inputs = Inputs(self.plan, self.answers)
        todo = [k for k in wanted if k not in self.answers]
        self.progress.begin(len(wanted), len(wanted) - len(todo))
        if todo:
            self.store.bury(is_dead)
        # DSPy and litellm are a million objects; to look through them for garbage, again and
        # again while answers come, costs as much as a fifth of all that is done for an answer
        froze = bool(todo) and not gc.get_freeze_count()  # who runs us may have done it for good
        if froze:
            gc.freeze()
        try:
            while todo and not self.stop.asked:
                ready = [k for k in todo if self.inputs.are_there(k)]
                if not ready:
                    self._lost(todo)
                    break
                self._ask_all(ready)
                todo = [k for k in todo if k not in self.answers]
        finally:
            if froze:
                gc.unfreeze()
            self.store.release(self.owner)
        self._answer_plainly()
        return Answered(self.answers, frozenset(self.asked))

    def _answer_plainly(self) -> None:
        """What decisions take from steps without a model: computed anew, never stored."""
        for question in self.plan.questions:
            for link in (link for links in question.takes.values() for link in links):
                if link.key in self.answers or self.plan.jobs[link.key].step.algorithm.calls:
                    continue
                output = self.inputs.output(link.key)
                failure = output if isinstance(output, Failure) else None
                said = None if failure else encode(output)
                self.answers[link.key] = Answer(key=link.key, output=said, failure=failure)

    def _lost(self, todo: list[str]) -> None:
        failure = Failure(status="unreachable", message="what this builds on was never answered")
        for key in todo:
            self.answers[key] = Answer(key=key, failure=failure)

    def _ask_all(self, keys: list[str]) -> None:
        """Claim, ask and store; what another process has claimed is waited for."""
        elsewhere: list[str] = []
        self._ask_some(keys, elsewhere)
        while elsewhere and not self.stop.asked:
            self._keep(self.store.known(elsewhere).values(), fresh=False)
            left = [k for k in elsewhere if k not in self.answers]
            elsewhere = []
            self.store.bury(is_dead)
            self._ask_some(left, elsewhere)
            time.sleep(0.1 if elsewhere else 0)

    def _ask_some(self, keys: list[str], elsewhere: list[str]) -> None:
        """Ask what can be claimed; note what another process has."""
        inline = [k for k in keys if self._backend(k).concurrency == 1]
        pooled = [k for k in keys if self._backend(k).concurrency > 1]
        self._ask_inline(self._claimed(inline, elsewhere))
        if pooled and not self.stop.asked:
            # neighbours share the beginning of their prompts, which servers keep
            pooled.sort(key=self.prefix)
            self._ask_pooled(self._claimed(pooled, elsewhere), pooled)

    def _claimed(self, keys: list[str], elsewhere: list[str]) -> Iterator[str]:
        """The keys one by one, claimed shortly before they are asked."""
        size = max(BATCH, 4 * max(b.concurrency for b in self.backends.values()))
        for start in range(0, len(keys), size):
            chunk = keys[start : start + size]
            won = self.store.claim(chunk, self.owner, CLAIM_SECONDS)
            elsewhere += [k for k in chunk if k not in won]
            yield from (k for k in chunk if k in won)

    def prefix(self, key: str) -> Prefix:
        job = self.plan.jobs[key]
        attribute = job.inputs.get("attribute")
        return job.model.name, job.step.name, getattr(attribute, "name", "")

    def warms(self, key: str) -> Prefix | None:
        """What a server should have read before many questions come that begin alike; None where
        it reads that once anyway."""
        return None if getattr(self._backend(key), "batches", False) else self.prefix(key)

    def _ask_inline(self, keys: Iterator[str]) -> None:
        waiting: list[Answer] = []
        saved = time.monotonic()
        try:
            while self.may_ask() and (key := next(keys, None)) is not None:
                waiting.append(self.ask(key))
                self.spent(waiting[-1])
                self.unheard = 0  # it answers in this very process
                # quick answers are saved together, slow ones each at once
                if len(waiting) >= BATCH or time.monotonic() - saved > SAVE_SECONDS:
                    self._keep(waiting)
                    waiting, saved = [], time.monotonic()
        finally:
            self._keep(waiting)

    def _ask_pooled(self, keys: Iterator[str], known: Sequence[str]) -> None:
        """The loop asks, this thread saves."""
        workers = min(len(known), max(self._backend(k).concurrency for k in known))
        heard: SimpleQueue[Answer | BaseException | None] = SimpleQueue()
        line = Line(keys, self, workers, heard.put)
        self.silent, self.unheard = [], 0
        line.begin()
        try:
            stopped, saved = None, 0.0
            while workers:
                come = _all_of(heard, saved + TOGETHER_SECONDS)
                saved = time.monotonic()
                self._keep(self._sifted([a for a in come if isinstance(a, Answer)]))
                self._somebody_answers()
                workers -= come.count(None)
                for wrong in come:
                    if isinstance(wrong, BaseException):
                        raise wrong
                if self.stop.asked:
                    stopped = stopped or time.monotonic()
                    if self.stop.hurry.is_set() or time.monotonic() - stopped > PATIENCE:
                        line.let_go()
        except BaseException:
            self.stop.now("failed")
            line.let_go()
            come = _waiting(heard)
            self._keep([a for a in come if isinstance(a, Answer) and not _is_silence(a)])
            raise
        self._keep(self.silent)

    def _sifted(self, answers: Sequence[Answer]) -> list[Answer]:
        """Answers to be kept. Those that never came are kept once another has come: of a server
        that has gone, nothing is to be known but that."""
        kept: list[Answer] = []
        for answer in answers:
            self.silent.append(answer)
            if not _is_silence(answer):
                kept += self.silent
                self.silent = []
        return kept

    def _somebody_answers(self) -> None:
        """Raises BackendError where a server has gone."""
        if sum(a.calls for a in self.silent) >= self.most_unheard:
            last = self.silent[-1]
            name, why = self.plan.jobs[last.key].model.name, last.failure
            said = f"the model `{name}` answers no more: {why.message if why else ''}"
            hint = "see to its server; all answers so far are saved, and the same command goes on"
            raise BackendError(f"{said}\n  = {hint}")

    def may_ask(self, in_flight: int = 0) -> bool:
        calls, tokens = self.most_calls, self.most_tokens
        if (calls is not None and self.calls + in_flight >= calls) or (
            tokens is not None and self.tokens >= tokens
        ):
            if not in_flight:
                self.stop.now("budget")
            return False
        return not self.stop.asked and self.unheard < self.most_unheard

    def spent(self, answer: Answer) -> None:
        self.unheard = self.unheard + answer.calls if _is_silence(answer) else 0
        self.calls += answer.calls
        self.tokens += answer.prompt_tokens + answer.completion_tokens

    def _backend(self, key: str) -> Backend:
        return self.backends[self.plan.jobs[key].model.name]

    def blocks(self, key: str) -> bool:
        """Whether asking may keep a thread waiting for something other than our wire."""
        job = self.plan.jobs[key]
        shipped = ALGORITHMS.shipped(job.step.algorithm.name)
        return not (shipped and getattr(self._backend(key), "waits_in_loop", False))

    def ask(self, key: str) -> Answer:
        job = self.plan.jobs[key]
        return ask(job, self.inputs.of(job), self._backend(key))

    def _keep(self, answers: Iterable[Answer], fresh: bool = True) -> None:
        answers = list(answers)
        if fresh and answers:
            self.store.put(answers)
            self.asked.update(a.key for a in answers)
        for answer in answers:
            self.answers[answer.key] = answer
            self.progress.answered(answer)
        self._renew()

    def _renew(self) -> None:
        if time.monotonic() - self.renewed > CLAIM_SECONDS / 4:
            self.store.renew(self.owner, CLAIM_SECONDS)
            self.renewed = time.monotonic()


def _is_silence(answer: Answer) -> bool:
    """Whether nobody replied at all; what a server says with a status of 500 is kept as it came."""
    failure = answer.failure
    return (
        failure is not None
        and failure.status in ("timeout", "unreachable")
        and not failure.raw
        and answer.calls > 0
    )


def _all_of(heard: SimpleQueue[Answer | BaseException | None], until: float) -> list[object]:
    """What has come; answers that come quickly are saved together. Nothing, now and then."""
    try:
        come: list[object] = [heard.get(timeout=LOOK_SECONDS)]
    except Empty:
        return []
    if come[0] is not None:
        time.sleep(max(0.0, until - time.monotonic()))
    return [*come, *_waiting(heard)]


def _waiting(heard: SimpleQueue[Answer | BaseException | None]) -> list[object]:
    come: list[object] = []
    while not heard.empty():  # nobody else takes from it
        come.append(heard.get())
    return come
