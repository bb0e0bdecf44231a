"""A plan's jobs -> answers, each asked for at most once. The only stage that calls a model.

Answers go to the store as they come, so a run that is killed loses what was in flight and nothing
else. Jobs are claimed before they are asked, so that two processes on one store share the work.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import dspy

from align_dsl.backends import Backend
from align_dsl.engine.adapter import TRAIL, NoAnswer, Trail
from align_dsl.engine.inputs import Inputs
from align_dsl.engine.lower import encode, lower
from align_dsl.engine.plan import Job, Plan, Question
from align_dsl.errors import AlignError, PlanError
from align_dsl.records.owner import is_dead, owner
from align_dsl.records.record import Answer
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Failure, Rating

CLAIM_SECONDS = 60.0  # how long a claim outlives the process that made it
BATCH = 64  # jobs claimed and answers written together at most
SAVE_SECONDS = 0.05  # how long an answer may wait to be written
WARM_FROM = 4  # workers from which on a group is begun with a single question


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
    stop: Stop | None = None,
) -> Answered:
    """Every answer of the plan that could be had. `budget` bounds the calls of this execution.

    Sets `stop` with the reason "budget" where the budget ends it.
    """
    work = _Work(
        plan, backends, store, progress or Quiet(), budget, stop if stop is not None else Stop()
    )
    return work.run()


class _Work:
    def __init__(
        self,
        plan: Plan,
        backends: Mapping[str, Backend],
        store: AnswerStore,
        progress: Progress,
        budget: int | None,
        stop: Stop,
    ) -> None:
        self.plan, self.backends, self.store = plan, backends, store
        self.progress, self.budget, self.stop = progress, budget, stop
        self.owner = owner()
        self.answers: dict[str, Answer] = {}
        self.asked: set[str] = set()
        self.calls = 0
        self.renewed = time.monotonic()

    def run(self) -> Answered:
        wanted = self.plan.model_jobs
        self.answers = self.store.known(wanted)
        self.inputs = Inputs(self.plan, self.answers)
        todo = [k for k in wanted if k not in self.answers]
        self.progress.begin(len(wanted), len(wanted) - len(todo))
        if todo:
            self.store.bury(is_dead)
        try:
            while todo and not self.stop.asked:
                ready = [k for k in todo if self.inputs.are_there(k)]
                if not ready:
                    self._lost(todo)
                    break
                self._ask_all(ready)
                todo = [k for k in todo if k not in self.answers]
        finally:
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
            pooled.sort(key=self._prefix)
            self._ask_pooled(self._claimed(pooled, elsewhere), pooled)

    def _claimed(self, keys: list[str], elsewhere: list[str]) -> Iterator[str]:
        """The keys one by one, claimed shortly before they are asked."""
        size = max(BATCH, 4 * max(b.concurrency for b in self.backends.values()))
        for start in range(0, len(keys), size):
            chunk = keys[start : start + size]
            won = self.store.claim(chunk, self.owner, CLAIM_SECONDS)
            elsewhere += [k for k in chunk if k not in won]
            yield from (k for k in chunk if k in won)

    def _prefix(self, key: str) -> tuple[str, str, str]:
        job = self.plan.jobs[key]
        attribute = job.inputs.get("attribute")
        return job.model.name, job.step.name, getattr(attribute, "name", "")

    def _ask_inline(self, keys: Iterator[str]) -> None:
        waiting: list[Answer] = []
        saved = time.monotonic()
        try:
            while not self._may_not_ask() and (key := next(keys, None)) is not None:
                waiting.append(self._ask(key))
                self.calls += waiting[-1].calls
                # quick answers are saved together, slow ones each at once
                if len(waiting) >= BATCH or time.monotonic() - saved > SAVE_SECONDS:
                    self._keep(waiting)
                    waiting, saved = [], time.monotonic()
        finally:
            self._keep(waiting)

    def _ask_pooled(self, keys: Iterator[str], known: Sequence[str]) -> None:
        """Threads ask, this one saves: each takes the next key as soon as it is free."""
        workers = min(len(known), max(self._backend(k).concurrency for k in known))
        heard: SimpleQueue[Answer | BaseException | None] = SimpleQueue()
        line = _Line(keys, self, workers)
        threads = [
            threading.Thread(target=line.work, args=(heard,), name=f"job-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in threads:
            thread.start()
        working = workers
        while working:
            come = _all_of(heard)
            self._keep([a for a in come if isinstance(a, Answer)])
            working -= come.count(None)
            for wrong in come:
                if isinstance(wrong, BaseException):
                    self.stop.now("failed")
                    raise wrong

    def _may_not_ask(self, running: int = 0) -> bool:
        if self.budget is not None and self.calls + running >= self.budget:
            if not running:
                self.stop.now("budget")
            return True
        return self.stop.asked

    def _backend(self, key: str) -> Backend:
        return self.backends[self.plan.jobs[key].model.name]

    def _ask(self, key: str) -> Answer:
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


def _all_of(heard: SimpleQueue[Answer | BaseException | None]) -> list[object]:
    """Whatever has come, at least one thing: answers that come together are saved together."""
    come: list[object] = []
    while True:
        try:
            come.append(heard.get(timeout=None if not come else 0))
        except Empty:
            return come
        if len(come) >= BATCH:
            return come


class _Line:
    """Where the threads of a pool queue up for keys."""

    def __init__(self, keys: Iterator[str], work: _Work, workers: int) -> None:
        self.keys, self.of, self.workers = keys, work, workers
        self.lock = threading.Lock()
        self.in_flight = 0
        self.prefix: tuple[str, str, str] | None = None

    def work(self, heard: SimpleQueue[Answer | BaseException | None]) -> None:
        try:
            while (key := self._next(heard)) is not None:
                self._done(self.of._ask(key), heard)
        except BaseException as error:
            heard.put(error)
        finally:
            heard.put(None)

    def _next(self, heard: SimpleQueue[Answer | BaseException | None]) -> str | None:
        """The next key to ask. The first of a group is asked while the others wait here, so that

        the server has read what the group has in common before it is asked for many at once.
        """
        with self.lock:
            while not self.of._may_not_ask(self.in_flight):
                key = next(self.keys, None)
                if key is None:
                    return None
                prefix = self.of._prefix(key)
                if prefix == self.prefix or self.workers < WARM_FROM:
                    self.in_flight += 1
                    return key
                self.prefix = prefix
                answer = self.of._ask(key)
                self.of.calls += answer.calls
                heard.put(answer)
            return None

    def _done(self, answer: Answer, heard: SimpleQueue[Answer | BaseException | None]) -> None:
        with self.lock:
            self.in_flight -= 1
            self.of.calls += answer.calls
        heard.put(answer)


def ask(job: Job, inputs: dict[str, Any] | Failure, backend: Backend) -> Answer:
    """Run one algorithm once. Whatever goes wrong with the model becomes part of the answer."""
    if isinstance(inputs, Failure):
        return Answer(key=job.key, failure=inputs)
    trail = Trail(seed=int(job.key[:7], 16))
    token = TRAIL.set(trail)
    started = time.perf_counter()
    output, failure = None, None
    try:
        # opened per job: DSPy's context does not cross into threads of a pool
        with dspy.context(
            lm=backend.lm, adapter=backend.adapter, disable_history=True, max_trace_size=0
        ):
            output = _within(lower(job.step)(**inputs), job)
    except NoAnswer as no:
        failure = no.failure
    except AlignError:
        raise
    except Exception as error:
        if ALGORITHMS.shipped(job.step.algorithm.name):
            raise
        raise PlanError(_blame(job, error)) from error
    finally:
        with contextlib.suppress(ValueError):
            TRAIL.reset(token)
    return Answer(
        key=job.key,
        output=output,
        failure=failure,
        raw=trail.raw,
        calls=trail.calls,
        retries=trail.retries,
        prompt_tokens=trail.prompt_tokens,
        completion_tokens=trail.completion_tokens,
        seconds=round(time.perf_counter() - started, 6),
        constrained=trail.constrained,
        notes=trail.notes,
    )


def _within(output: Any, job: Job) -> Any:
    """An algorithm's output as it is stored, if its ratings are ratings."""
    for one in output if isinstance(output, tuple) else ():
        if isinstance(one, Rating) and not -1e-9 <= one.value <= 1 + 1e-9:
            name = job.step.algorithm.name
            message = f"the algorithm `{name}` gave the rating {one.value:g}, not one from 0 to 1"
            raise NoAnswer(Failure(status="invalid", message=message))
    return encode(output)


def _blame(job: Job, error: Exception) -> str:
    """What went wrong in somebody else's algorithm, and where."""
    name = job.step.algorithm.name
    file = str(ALGORITHMS.place(name).path)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    said = f"the algorithm `{name}` failed: {type(error).__name__}: {error}"
    return f"{said}\n --> {file}" + (f":{lines[-1]}" if lines else "")
