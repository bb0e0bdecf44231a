"""The store as one execution sees it: what is known, what is its to ask, and what has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from align_dsl.engine.crew import Came
from align_dsl.records.owner import is_dead, owner
from align_dsl.records.record import Answer

CLAIM_SECONDS = 60.0  # how long a claim outlives the process that made it


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


class Ledger:
    """Used by the thread that executes, and by no other: it may have to wait for the disk."""

    def __init__(self, store: AnswerStore, progress: Progress) -> None:
        self.store, self.progress = store, progress
        self.owner = owner()
        self.answers: dict[str, Answer] = {}
        self.asked: set[str] = set()
        self.elsewhere: list[str] = []  # wanted, but claimed or answered by another process
        self.silent: dict[str, list[Answer]] = {}  # of each model, the last that nobody replied to
        self.renewed = time.monotonic()

    def open(self, wanted: Sequence[str]) -> list[str]:
        """Those that are still to be asked."""
        self.answers.update(self.store.known(wanted))
        todo = [key for key in wanted if key not in self.answers]
        self.progress.begin(len(wanted), len(wanted) - len(todo))
        if todo:
            self.store.bury(is_dead)
        return todo

    def claimed(self, keys: Sequence[str]) -> list[str]:
        """Those that are now ours to ask; the others are noted."""
        won = self.store.claim(keys, self.owner, CLAIM_SECONDS)
        self.elsewhere += [key for key in keys if key not in won]
        return [key for key in keys if key in won]

    def look_elsewhere(self) -> list[str]:
        """See what others have answered; those that they have not may be to be had by now."""
        looked, self.elsewhere = self.elsewhere, []
        self._note(self.store.known(looked).values())
        self.store.bury(is_dead)
        return [key for key in looked if key not in self.answers]

    def close(self) -> None:
        self.store.release(self.owner)

    # --- what has come -----------------------------------------------------------------------

    def hear(self, model: str, come: Iterable[Came]) -> list[Answer]:
        """Answers to be kept. Those that never came are kept once another has come: of a server
        that has gone, nothing is to be known but that."""
        kept: list[Answer] = []
        silent = self.silent.setdefault(model, [])
        for one in come:
            silent.append(one.answer)
            if not one.is_silence:
                kept += silent
                silent.clear()
        return kept

    def keep(self, answers: Sequence[Answer]) -> None:
        if answers:
            self.store.put(answers)
            self.asked.update(a.key for a in answers)
            self._note(answers)
        if time.monotonic() - self.renewed > CLAIM_SECONDS / 4:
            self.store.renew(self.owner, CLAIM_SECONDS)
            self.renewed = time.monotonic()

    def _note(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self.answers[answer.key] = answer
            self.progress.answered(answer)
