"""A plan's jobs -> answers, each asked for at most once. The only stage that calls a model.

Answers go to the store as they come, so a run that is killed loses what was in flight and nothing
else. Jobs are claimed before they are asked, so that two processes on one store share the work.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

import dspy

from align_dsl.backends import Backend
from align_dsl.engine.adapter import TRAIL, NoAnswer, Trail
from align_dsl.engine.lower import decode, encode, lower
from align_dsl.engine.plan import Job, Plan, Question
from align_dsl.records.record import Answer
from align_dsl.types import Failure

CLAIM_SECONDS = 60.0  # how long a claim outlives the process that made it
BATCH = 64  # jobs claimed and answers written together at most


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
        self.owner = f"{platform.node()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
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
                ready = [k for k in todo if self._is_ready(k)]
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

    def _is_ready(self, key: str) -> bool:
        return all(d in self.answers for d in self._model_inputs(key))

    def _model_inputs(self, key: str) -> Iterator[str]:
        """The jobs with a model that a job builds on, directly or through others."""
        for value in self.plan.jobs[key].inputs.values():
            for below in value if _are_keys(value, self.plan) else ():
                if self.plan.jobs[below].step.algorithm.calls:
                    yield below
                else:
                    yield from self._model_inputs(below)

    def _lost(self, todo: list[str]) -> None:
        failure = Failure(status="unreachable", message="what this builds on was never answered")
        for key in todo:
            self.answers[key] = Answer(key=key, failure=failure)

    def _ask_all(self, keys: list[str]) -> None:
        """Claim, ask and store; what another process has claimed is waited for."""
        elsewhere: list[str] = []
        for mine, theirs in self._claimed(keys):
            elsewhere += theirs
            if mine:
                self._ask_batch(mine)
            if self.stop.asked:
                return
        while elsewhere and not self.stop.asked:
            self._keep(self.store.known(elsewhere).values(), fresh=False)
            elsewhere = [k for k in elsewhere if k not in self.answers]
            if elsewhere:
                mine = sorted(self.store.claim(elsewhere, self.owner, CLAIM_SECONDS))
                if mine:
                    self._ask_batch(mine)
                elsewhere = [k for k in elsewhere if k not in self.answers]
                self.store.bury(is_dead)
                time.sleep(0.1 if elsewhere else 0)

    def _claimed(self, keys: list[str]) -> Iterator[tuple[list[str], list[str]]]:
        size = max(BATCH, 4 * max(b.concurrency for b in self.backends.values()))
        for start in range(0, len(keys), size):
            chunk = keys[start : start + size]
            won = self.store.claim(chunk, self.owner, CLAIM_SECONDS)
            yield [k for k in chunk if k in won], [k for k in chunk if k not in won]

    def _ask_batch(self, keys: list[str]) -> None:
        # another process may have answered between our look and our claim
        self._keep(self.store.known(keys).values(), fresh=False)
        keys = [k for k in keys if k not in self.answers]
        inline = [k for k in keys if self._backend(k).concurrency == 1]
        pooled = [k for k in keys if self._backend(k).concurrency > 1]
        done: list[Answer] = []
        for key in inline:
            if self._may_not_ask():
                break
            done.append(self._ask(key))
            self.calls += done[-1].calls
            if len(done) >= BATCH:
                self._keep(done)
                done = []
        self._keep(done)
        if pooled and not self.stop.asked:
            self._ask_pooled(pooled)

    def _ask_pooled(self, keys: list[str]) -> None:
        workers = max(self._backend(k).concurrency for k in keys)
        queue = iter(keys)
        running: set[Future[Answer]] = set()
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="job") as pool:
            exhausted = False
            while True:
                while (
                    not exhausted and len(running) < workers and not self._may_not_ask(len(running))
                ):
                    key = next(queue, None)
                    if key is None:
                        exhausted = True
                    else:
                        running.add(pool.submit(self._ask, key))
                if not running:
                    break
                done, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                answers = [f.result() for f in done]
                self.calls += sum(a.calls for a in answers)
                self._keep(answers)
                self._renew()

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


def is_dead(owner: str) -> bool:
    """Whether an owner was a process of this machine that is no more."""
    node, _, rest = owner.partition("/")
    pid = rest.partition("/")[0]
    if node != platform.node() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's, but alive
        return False
    return False


class Inputs:
    """The values that jobs take, found through what other jobs brought back.

    Jobs that need no model are done here, when and if something takes them.
    """

    def __init__(self, plan: Plan, answers: Mapping[str, Answer]) -> None:
        self.plan, self.answers = plan, answers
        self.plain: dict[str, Any] = {}

    def of(self, job: Job) -> dict[str, Any] | Failure:
        """The values of a job's ports; a failure where one of them never came."""
        values: dict[str, Any] = {}
        for port, value in job.inputs.items():
            if not _are_keys(value, self.plan):
                values[port] = value
                continue
            outputs = []
            for key in value:
                output = self.output(key)
                if isinstance(output, Failure):
                    return output
                outputs.append(output)
            values[port] = tuple(x for o in outputs for x in o) if len(outputs) != 1 else outputs[0]
        return values

    def output(self, key: str) -> Any:
        job = self.plan.jobs[key]
        if job.step.algorithm.calls:
            answer = self.answers.get(key)
            if answer is None:
                return Failure(status="unreachable", message="never asked")
            return answer.failure or decode(job.step.algorithm.output, answer.output)
        if key not in self.plain:
            inputs = self.of(job)
            self.plain[key] = inputs if isinstance(inputs, Failure) else lower(job.step)(**inputs)
        return self.plain[key]


def _are_keys(value: Any, plan: Plan) -> bool:
    return isinstance(value, tuple) and all(isinstance(k, str) and k in plan.jobs for k in value)


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
            output = encode(lower(job.step)(**inputs))
    except NoAnswer as no:
        failure = no.failure
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
