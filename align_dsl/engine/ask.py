"""A job -> an answer: one algorithm, run once. Whatever goes wrong with the model is part of it."""

from __future__ import annotations

import contextlib
import time
import traceback
from typing import Any

from align_dsl.backends import Backend
from align_dsl.engine.adapter import TRAIL, NoAnswer, Trail, Unfinished
from align_dsl.engine.lower import encode, lower
from align_dsl.engine.plan import Job
from align_dsl.engine.predict import directly, run
from align_dsl.errors import AlignError, PlanError
from align_dsl.records.record import Answer
from align_dsl.registry import ALGORITHMS
from align_dsl.types import Failure, Rating


def trail_of(key: str) -> Trail:
    """Where what happens on the wire for a job is written down: its requests bear a seed of it."""
    return Trail(seed=int(key[:7], 16))


def ask(
    job: Job, inputs: dict[str, Any] | Failure, backend: Backend, trail: Trail | None = None
) -> Answer:
    """Run one algorithm once. Whatever goes wrong with the model becomes part of the answer.

    `trail` is for who must know what was sent even where no answer comes of it. Raises Unfinished
    where that may be no more.
    """
    if isinstance(inputs, Failure):
        return Answer(key=job.key, failure=inputs)
    trail = trail if trail is not None else trail_of(job.key)
    token = TRAIL.set(trail)
    started = time.perf_counter()
    output, failure = None, None
    try:
        own = ALGORITHMS.shipped(job.step.algorithm.name)
        with directly(backend.lm, backend.adapter, own):  # for each job: none crosses threads
            output = _within(run(lower(job.step), inputs), job)
    except NoAnswer as no:
        failure = no.failure
    except (AlignError, Unfinished):
        raise
    except Exception as error:
        blame(job, error)
        raise
    finally:
        with contextlib.suppress(ValueError):
            TRAIL.reset(token)
    return answer_of(job.key, output, failure, trail, started)


def answer_of(
    key: str, output: Any, failure: Failure | None, trail: Trail, started: float
) -> Answer:
    """What came of a job, with what happened on the wire; `started` is of the performance clock."""
    return Answer(
        key=key,
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


def blame(job: Job, error: Exception) -> None:
    """Raises PlanError where somebody else's algorithm went wrong: says which, and where."""
    name = job.step.algorithm.name
    if isinstance(error, AlignError) or ALGORITHMS.shipped(name):
        return
    file = str(ALGORITHMS.place(name).path)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    said = f"the algorithm `{name}` failed: {type(error).__name__}: {error}"
    raise PlanError(f"{said}\n --> {file}" + (f":{lines[-1]}" if lines else "")) from error
