"""A small study whose model is a server that counts what it is asked."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align_dsl.engine.execute import Stop
from align_dsl.optimize.run import begin
from align_dsl.optimize.search import Search
from align_dsl.optimize.studies import find
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.workers import search_of
from align_dsl.records.store import Store
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply
from tests.worlds import cases, write_world

PROGRAM = """version: 1
program: small
about: A small program whose calls are counted.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.5, test: 0.5}}
targets: {each: [low, high]}
deciders:
  mine: {use: comparative_regression}
model: here
models:
  here: {use: hosted_vllm/nobody, endpoint: URL/v1, concurrency: 4, context: 100000, retries: 0}
optimize:
  decider: mine
  trials: 6
  space: SPACE
"""
SPACE = "{shots: [0, 1, 2, 3], select: [similar, random]}"
REFUSED = Reply(body=b'{"error": {"message": "no such key"}}', status=401)
NOBODY = FAULTS["hangs up"]


def answer(asked: Asked) -> Reply:
    """Ratings drawn from the prompt: the same prompt, the same answer."""
    ratings = asked.schema["properties"]["ratings"]["properties"]
    dice = random.Random(hashlib.sha256(json.dumps(asked.messages).encode()).digest())
    said = {"because": "so", "ratings": {letter: dice.randrange(11) for letter in ratings}}
    return Reply(json.dumps(said))


def task(folder: Path, server: Recorder, space: str = SPACE, **options: object) -> Task:
    path = write_world(
        folder, cases(16), PROGRAM.replace("URL", server.url).replace("SPACE", space)
    )
    return Task(path, store=folder / ".align" / "align.db", **options)  # type: ignore[arg-type]


@contextmanager
def at_work(asked: Task) -> Iterator[tuple[Ready, Study, Search]]:
    """A task that has begun, its study and its search."""
    with Store.open(asked.store) as store:
        made = ready(asked, store)
        try:
            with Study(asked.where, made.study) as kept:
                begin(made, kept)
                yield made, kept, search_of(made, kept, Stop())
        finally:
            made.close()


def try_default(search: Search) -> None:
    """The first batch; the next one waits."""
    search._prepare()
    search._try(search.study.claim())
    search._prepare()


def study(folder: Path) -> Study:
    where = folder / ".align" / "study.log"
    return Study(where, find(where, "last"))


def default_needs(asked: Task) -> tuple[int, int]:
    """Calls of the default on the train cases and on the test cases."""
    with Store.open(asked.store) as store:
        made = ready(asked, store)
        made.close()
        return made.train.lacks(made.space.default), made.test.lacks(made.space.default)
