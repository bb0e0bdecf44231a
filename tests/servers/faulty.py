"""A server that knows a right answer to every question, and often does something else instead.

Right answers are drawn from the text of the question, and so is what goes wrong at which try: the
same in any order, after any number of restarts. `python tests/servers/faulty.py [PORT]` runs one in
a process of its own, told by lines of JSON on stdin and answering in lines of JSON on stdout.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from align_dsl.records.record import Answer
from tests.servers.fake_ollama import draw
from tests.servers.recorder import FAULTS, Asked, Recorder, Reply

RIGHT = "right"
PROGRAM = """version: 1
program: small
about: Four ways of deciding, on a server that misbehaves.
attributes: two
data: {format: jsonl, path: cases.jsonl}
targets: {each: [low, high], of: [mercy]}
deciders:
  regression: {use: comparative_regression}
  alone: {use: direct_regression}
  prompt: {use: prompt_aligned}
  baseline: {use: baseline}
model: here
models:
"""
"""What it is asked: four decisions for each case and target, of two targets."""


def program(*urls: str, **model: Any) -> str:
    """The program, on servers at these addresses; `model`: what else is said of the model."""
    options = {"use": "openai/tiny", "endpoint": [f"{url}/v1" for url in urls], **model}
    return f"{PROGRAM}  here: {json.dumps(options)}\n"


@dataclass(frozen=True, slots=True)
class Mishap:
    """What a server does instead of answering, and what must be written down where it goes on."""

    reply: Callable[[Any], Reply]  # the right answer -> what is sent
    status: str
    said: str  # part of the message that a user reads
    tries: int | None = None  # after so many it is given up; None: after all that there are


def _as(fault: str) -> Callable[[Any], Reply]:
    return lambda right: FAULTS[fault]


def _spoilt(right: Any) -> Any:
    """Right in form, but every number out of range and every letter nobody's."""
    match right:
        case {"because": because, **rest}:
            return {"because": because, **{k: _spoilt(v) for k, v in rest.items()}}
        case dict():
            return {k: _spoilt(v) for k, v in right.items()}
        case str():
            return "Z"
    return right + 1000


def _said(right: Any, **more: Any) -> Reply:
    return Reply(json.dumps(right), **more)


MISHAPS: dict[str, Mishap] = {
    "429": Mishap(_as("429"), "unreachable", "answered 429"),
    "429 with Retry-After": Mishap(_as("429 with Retry-After"), "unreachable", "answered 429"),
    "503": Mishap(_as("503"), "unreachable", "answered 503"),
    "503 with Retry-After": Mishap(_as("503 with Retry-After"), "unreachable", "answered 503"),
    "500": Mishap(_as("500"), "refused", "answered 500"),
    "hang": Mishap(_as("hang"), "timeout", "no answer within"),
    "cut body": Mishap(lambda right: _said(right, cut=40), "unreachable", "hung up"),
    "hangs up": Mishap(_as("hangs up"), "unreachable", "hung up"),
    "not JSON": Mishap(_as("not JSON"), "invalid", "something that is no answer"),
    "error body": Mishap(_as("error body"), "refused", "answered with an error: model not found"),
    "truncated": Mishap(
        lambda right: Reply(json.dumps(right)[:25], finish="length"), "truncated", "cut off", 1
    ),
    "wrong type": Mishap(lambda right: _said(_spoilt(right)), "invalid", "not ", 2),
    "ignores the schema": Mishap(_as("ignores the schema"), "invalid", "not one JSON object", 2),
    "control characters": Mishap(
        lambda right: Reply(json.dumps(right).replace("because it", "because\x01it")),
        "invalid",
        "not one JSON object",
        2,
    ),
}


@dataclass(slots=True)
class Faulty:
    """A script for a recorder. What it has sent is kept by question, in the order of its tries."""

    rate: float = 0.0  # of requests that go wrong
    seed: int = 0
    loading: float = 0.0  # seconds from the first request on, in which all are told to wait
    delay: float = 0.0  # seconds that a right answer takes
    stubborn: tuple[str, ...] = ()  # each befalls one question for good: the first that come
    sent: dict[str, list[str]] = field(default_factory=dict)
    requests: int = 0
    _for_good: dict[str, str] = field(default_factory=dict)
    _since: float | None = None

    def __call__(self, asked: Asked) -> Reply:
        self.requests += 1
        self._since = self._since or time.monotonic()
        question = named(asked)
        before = self.sent.setdefault(question, [])
        if time.monotonic() - self._since < self.loading:
            before.append("loading")
            return FAULTS["loading"]
        what = self._what(question, len(before))
        before.append(what)
        right = draw(asked.schema, random.Random(question.partition(" ")[2]))
        if what == RIGHT:
            return Reply(json.dumps(right), delay=self.delay)
        return MISHAPS[what].reply(right)

    def _what(self, question: str, times: int) -> str:
        if question in self._for_good:
            return self._for_good[question]
        if not times and len(self._for_good) < len(self.stubborn):
            what = self._for_good[question] = self.stubborn[len(self._for_good)]
            return what
        dice = random.Random(f"{self.seed} {question.partition(' ')[2]} {times}")
        if dice.random() >= self.rate:
            return RIGHT
        return dice.choices(list(MISHAPS), [0.25 if m == "hang" else 1 for m in MISHAPS])[0]


def named(asked: Asked) -> str:
    """A question by the seed it came with, which is of its job, and by a hash of its own text.

    What is said after the first two messages is about an earlier answer to the same question.
    """
    said = json.dumps([m["content"] for m in asked.messages[:2]])
    return f"{asked.json['seed']} {hashlib.sha256(said.encode()).hexdigest()}"


def outcome(tries: Sequence[str]) -> tuple[str, int]:
    """What must be kept of a job to which the server did these things: status and calls."""
    last = tries[-1]
    status = {RIGHT: "ok", "loading": "unreachable"}.get(last) or MISHAPS[last].status
    return status, len(tries)


def differences(sent: Mapping[str, Sequence[str]], answers: Iterable[Answer]) -> list[str]:
    """Where what is kept is not what went over the wire. By chance, two jobs may share a seed."""
    heard: dict[str, list[tuple[str, int]]] = {}
    for question, tries in sent.items():
        heard.setdefault(question.partition(" ")[0], []).append(outcome(tries))
    kept: dict[str, list[tuple[str, int]]] = {}
    for one in answers:
        if one.calls:
            status = one.failure.status if one.failure else "ok"
            kept.setdefault(str(int(one.key[:7], 16)), []).append((status, one.calls))
    return [
        f"job {seed}: on the wire {heard.get(seed)}, kept {kept.get(seed)}"
        for seed in sorted(heard.keys() | kept.keys())
        if sorted(heard.get(seed, [])) != sorted(kept.get(seed, []))
    ]


def main() -> None:
    """`begin`: anew, with these settings. `change`: go on with these. `look`: all that was sent."""
    faulty = Faulty()

    async def obey(told: dict[str, Any]) -> dict[str, Any]:
        nonlocal faulty
        if "begin" in told:
            recorder.script = faulty = Faulty(**told["begin"])
        for name, value in told.get("change", {}).items():
            setattr(faulty, name, value)
        return {"requests": faulty.requests, "sent": faulty.sent if "look" in told else {}}

    with Recorder(faulty, int(sys.argv[1]) if sys.argv[1:] else 0) as recorder:
        recorder.asked = deque(maxlen=1)  # type: ignore[assignment]
        print(json.dumps({"url": recorder.url}), flush=True)
        for line in sys.stdin:
            print(json.dumps(recorder._do(obey(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
