"""What a decider remembers: answers, and which questions are being asked just now.

Calls that come together ask each question once: one call asks, the others wait for its answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from align_dsl.engine.fork import outlives_forks
from align_dsl.records.record import Answer

WAIT_SECONDS = 1.0  # at a time, for what another call asks


class Memory:
    """Answers for as long as a decider lives. Failures are forgotten: the next call asks again."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.begin_anew()
        outlives_forks(self)

    def begin_anew(self) -> None:
        """In the child of a fork, where nobody asks."""
        self.lock = threading.Lock()
        self.asked: dict[str, _Asked] = {}

    def of_call(self) -> Call:
        return Call(self)


class _Asked:
    """A question that somebody asks. Done without an answer: it was given up."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: Answer | None = None

    @property
    def is_given_up(self) -> bool:
        return self.done.is_set() and self.answer is None


class Call:
    """The memory as one call of the decider sees it: its store. For one thread."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._own: dict[str, _Asked] = {}
        self._awaited: dict[str, _Asked] = {}

    def known(self, keys: Iterable[str]) -> dict[str, Answer]:
        """What is remembered, and what has come meanwhile to others: their failures as well."""
        found = {}
        for key in keys:
            awaited = self._awaited.get(key)
            if awaited is not None:
                awaited.done.wait(WAIT_SECONDS)
            answer = self._memory.answers.get(key) or (awaited.answer if awaited else None)
            if answer is not None:
                found[key] = answer
        return found

    def put(self, answers: Sequence[Answer]) -> None:
        with self._memory.lock:
            self._memory.answers.update({a.key: a for a in answers if a.ok})
            for answer in answers:
                self._end(answer.key, answer)

    def claim(self, keys: Iterable[str], owner: str, seconds: float) -> set[str]:
        """The keys that are now this call's to ask. Who has waited in vain waits for nobody else:
        else calls to a server that is gone would find that out one after the other."""
        with self._memory.lock:
            return {key for key in keys if key not in self._memory.answers and self._is_ours(key)}

    def renew(self, owner: str, seconds: float) -> None: ...

    def release(self, owner: str) -> None:
        with self._memory.lock:
            for key in list(self._own):
                self._end(key, None)

    def bury(self, is_dead: Callable[[str], bool]) -> None: ...

    def _is_ours(self, key: str) -> bool:
        asked = self._awaited.get(key) or self._memory.asked.get(key)
        if asked is not None and not asked.is_given_up:
            self._awaited[key] = asked
            return False
        self._own[key] = self._memory.asked[key] = _Asked()
        return True

    def _end(self, key: str, answer: Answer | None) -> None:
        asked = self._own.pop(key, None)
        if asked is None:
            return
        if self._memory.asked.get(key) is asked:
            del self._memory.asked[key]
        asked.answer = answer
        asked.done.set()
