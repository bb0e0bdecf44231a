"""A task with a method of DSPy -> the settings that its optimizer came back with.

method     what of DSPy                          what it sets
bootstrap  BootstrapFewShotWithRandomSearch      demos (`trials: 1` is plain BootstrapFewShot)
mipro      MIPROv2                               demos and instructions
gepa       GEPA                                  instructions

DSPy's objects end here: what they found becomes settings of the decider, and that is judged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import dspy

from align_dsl.backends import Backend
from align_dsl.errors import AlignError, PlanError, visible
from align_dsl.optimize.journal import quiet
from align_dsl.optimize.space import Config
from align_dsl.optimize.stock.lessons import lessons
from align_dsl.optimize.stock.memory import Memory
from align_dsl.optimize.stock.pupil import Examples, Pupil, correct, examples, pupil, told
from align_dsl.optimize.stock.writer import Writer, rewords, writer_of
from align_dsl.optimize.task import Ready

VERSION = version("dspy")
BOOTSTRAPPED = 4  # demos that a model answered itself: DSPy's own numbers, all of these
LABELLED = 16
LABELLED_MIPRO = 4
CANDIDATES = (3, 18)  # sets of demos of mipro, from the fewest that it can do with
BATCH, BATCH_FROM = 35, 50  # examples that mipro looks at first, where there are more than these
THREADS = 32
SHARE = 0.4  # of the train cases that DSPy learns from, where it holds the rest against it
LIVELY = 1.0  # temperature at which instructions are written


@dataclass(frozen=True, slots=True)
class Found:
    """What an optimizer of DSPy came back with."""

    settings: Config
    optimizer: str  # as one would write it in Python
    scores: tuple[float, float] | None  # on its own part of the train cases: before, after
    candidates: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Size:
    """How much a method is to try."""

    trials: int
    candidates: int  # sets of demos
    wordings: int  # instructions, with the one that there is


def size_of(made: Ready) -> Size:
    """`trials` are candidates that are held against examples, as with `search`."""
    trials = made.trials
    low, high = CANDIDATES
    candidates = min(high, max(low, round(0.6 * trials)))
    propose = made.optimize.propose
    wordings = propose.count + 1 if propose else max(2, candidates // 2)
    return Size(trials, candidates, wordings if rewords(made) else 1)


def learn(made: Ready, memory: Memory) -> Found:
    """Let the optimizer run to its end, or to the end of the budget."""
    method, size = made.optimize.method, size_of(made)
    writer = writer_of(made, memory)
    try:
        (backend,) = made.backends.values()
        author = writer.author
        others = [author.backend] if author is not None and not author.is_own else []
        for one in (backend, *others):
            one.probe()
        module = pupil(made, memory, keeps_words=not rewords(made))
        work = _Work(made, memory, size, module, writer, _threads(backend))
        with _hushed(), dspy.context(lm=backend.lm, adapter=writer):
            try:
                taught, scores, candidates = work.by(method)
            except Exception as error:
                if memory.broke is not None:
                    raise memory.broke from None
                if not memory.ended:
                    raise _of_dspy(method, error) from error
                taught, scores, candidates = module, None, 0
        if memory.broke is not None:
            raise memory.broke
    finally:
        writer.close()
    program = made.space.checked.program
    is_deaf = method == "mipro" and writer.author is None
    known = (*made.train.known, *(c for block in made.train.blocks for c in block))
    found = lessons(taught, made.space.decider, known, program.targets)
    doubts = [f"`{made.model.name}` reads no instructions: demos alone"] if is_deaf else []
    doubts += [memory.failures()] if memory.failed else []
    notes = tuple(dict.fromkeys([*found.unsaid, *doubts]))
    return Found(found.settings, work.said, scores, candidates, notes)


def noted(found: Found, made: Ready) -> dict[str, Any]:
    """What is written down of it, and of what it was made with."""
    return {**asdict(found), "trials": size_of(made).trials, "dspy": VERSION}


def recalled(known: Any, made: Ready) -> Found | None:
    """What this very optimizer came back with before, if it did."""
    if not isinstance(known, dict):
        return None
    known = dict(known)
    if (known.pop("trials"), known.pop("dspy")) != (size_of(made).trials, VERSION):
        return None
    scores, notes = known.pop("scores"), tuple(known.pop("notes"))
    return Found(**known, scores=tuple(scores) if scores else None, notes=notes)


def _of_dspy(method: str, error: Exception) -> Exception:
    """An error of DSPy's own, told in one line; those of ours are told as they are."""
    if isinstance(error, AlignError):
        return error
    first = visible(str(error).strip().partition("\n")[0])[:200]
    said = f"error: the optimizer of `method: {method}` failed: {type(error).__name__}: {first}"
    return PlanError(f"{said}\n  = what was answered is kept; try another method, or fewer trials")


def _threads(backend: Backend) -> int:
    return 1 if backend.concurrency == 1 else min(THREADS, backend.concurrency)


# --- the optimizers -------------------------------------------------------------------------------

Taught = tuple[Any, tuple[float, float] | None, int]  # module, scores, candidates


@dataclass(slots=True)
class _Work:
    made: Ready
    memory: Memory
    size: Size
    module: Pupil
    writer: Writer
    threads: int
    said: str = ""

    def by(self, method: str) -> Taught:
        return {"bootstrap": self._bootstrap, "mipro": self._mipro, "gepa": self._gepa}[method]()

    @property
    def seed(self) -> int:
        return self.made.optimize.seed

    @property
    def _writes_with(self) -> Any:
        author = self.writer.author
        return (author or self.module.setting).backend.lm

    def _examples(self, share: float) -> Examples:
        return examples(self.made, learns_from=share)

    def _bootstrap(self) -> Taught:
        if self.size.trials == 1:
            few = {"max_bootstrapped_demos": BOOTSTRAPPED, "max_labeled_demos": LABELLED}
            self.said = _call("BootstrapFewShot", few)
            optimizer = dspy.BootstrapFewShot(metric=correct, max_errors=1, **few)
            return optimizer.compile(self.module, trainset=self._examples(1).train), None, 1
        settings = {
            "max_bootstrapped_demos": BOOTSTRAPPED,
            "max_labeled_demos": LABELLED,
            "num_candidate_programs": max(0, self.size.trials - 3),  # and three of its own
        }
        self.said = _call("BootstrapFewShotWithRandomSearch", settings)
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            metric=correct, num_threads=self.threads, max_errors=1, **settings
        )
        those = self._examples(SHARE)
        taught = optimizer.compile(self.module, trainset=those.train, valset=those.val)
        tried = {one["seed"]: one["score"] / 100 for one in taught.candidate_programs}
        return taught, (tried[-3], max(tried.values())), len(tried)

    def _mipro(self) -> Taught:
        those, size = self._examples(SHARE), self.size
        settings = {
            "auto": None,
            "num_candidates": size.candidates,
            "max_bootstrapped_demos": BOOTSTRAPPED,
            "max_labeled_demos": LABELLED_MIPRO,
            "seed": self.seed,
        }
        optimizer = dspy.MIPROv2(
            metric=correct,
            prompt_model=self._writes_with,
            task_model=self.module.setting.backend.lm,
            num_threads=self.threads,
            max_errors=1,
            init_temperature=LIVELY,
            **settings,
        )
        optimizer.num_instruct_candidates = size.wordings
        several = size.wordings > 1
        how = {
            "num_trials": size.trials,
            "minibatch": len(those.val) > BATCH_FROM,
            "minibatch_size": BATCH,
            "program_aware_proposer": False,  # our code says how it asks, not what it is about
            "data_aware_proposer": several,
            "tip_aware_proposer": several,
        }
        self.said = _call("MIPROv2", {**settings, "num_instruct_candidates": size.wordings, **how})
        taught = optimizer.compile(
            self.module, trainset=those.train, valset=those.val, seed=self.seed, **how
        )
        first = taught.trial_logs[1]["full_eval_score"] / 100
        tried = len(taught.candidate_programs) + len(taught.mb_candidate_programs)
        return taught, (first, taught.score / 100), tried

    def _gepa(self) -> Taught:
        from dspy.teleprompt.gepa import InstructionProposer

        those = self._examples(SHARE)
        settings = {"max_metric_calls": self.size.trials * len(those.val), "seed": self.seed}
        self.said = _call("GEPA", settings)
        optimizer = dspy.GEPA(
            metric=told,
            reflection_lm=self._writes_with.copy(temperature=LIVELY),
            instruction_proposer=InstructionProposer(adapter=self.writer),
            num_threads=self.threads,
            track_stats=True,
            gepa_kwargs={"stop_callbacks": [lambda state: self.memory.is_over()]},
            **settings,
        )
        taught = optimizer.compile(self.module, trainset=those.train, valset=those.val)
        scores = taught.detailed_results.val_aggregate_scores
        return taught, (scores[0], max(scores)), len(scores)


def _call(name: str, settings: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{k}={v}' for k, v in settings.items())})"


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """DSPy prints, logs and draws bars as it likes; what there is to say, we say."""
    log = logging.getLogger("dspy")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as sink,
            quiet(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def aloud(say: Callable[[Memory], None]) -> Callable[[Memory], None]:
    """What we say while DSPy is hushed, where it would be said otherwise."""
    out, err = sys.stdout, sys.stderr

    def said(memory: Memory) -> None:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            say(memory)

    return said
