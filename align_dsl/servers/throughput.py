"""How many typed decisions a second, at 1, 2, 4 and 8 at once? Twenty seconds in all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from align_dsl.engine.prompt import Shape
from align_dsl.servers.bench import Bench
from align_dsl.servers.chat import Answer, Question
from align_dsl.servers.line import Trouble, whole
from align_dsl.servers.report import Finding, ok, unknown, warning
from align_dsl.types import Scale

LEVELS = (1, 2, 4, 8)
SECONDS = 20.0  # for all levels together
MOST = 40  # requests at one level
GAIN = 1.4  # times faster at 8 than alone: less means one at a time
SCALE = Scale(low=0, high=10, step=1)
RATING = Shape((("choice", "label"), ("rating", "number")), ("A", "B", "C"), SCALE)
TASK = "You rate how fair a choice is to everybody who is concerned. " * 8
ADVICE = {
    "Ollama": "set OLLAMA_NUM_PARALLEL=4 or more for `ollama serve`: it answers one at a time"
    " unless told otherwise (memory for the context grows with it)",
    "llama.cpp": "start llama-server with `--parallel 8` and a `--ctx-size` eight times as large",
    "vLLM": "see `--max-num-seqs` and `--gpu-memory-utilization`",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """What one level came to."""

    at_once: int
    answers: int
    seconds: float
    tokens: int

    @property
    def rate(self) -> float:
        return self.answers / self.seconds if self.seconds else 0.0


async def probe_throughput(bench: Bench, seconds: float = SECONDS) -> list[Finding]:
    paces: list[Pace] = []
    end = time.monotonic() + seconds
    for i, level in enumerate(LEVELS):
        left = end - time.monotonic()
        if left < 0.5:
            break
        pace, trouble = await _pace(bench, level, left / (len(LEVELS) - i), left)
        if trouble and not pace.answers:
            if not paces:
                return [unknown("throughput", f"could not be told: {trouble}")]
            break
        if pace.answers:
            paces.append(pace)
    if not paces:
        return [unknown("throughput", f"not one answer within {seconds:g} s")]
    return [_found(bench, paces)]


async def _pace(
    bench: Bench, at_once: int, seconds: float, left: float
) -> tuple[Pace, Trouble | None]:
    """Requests begin for `seconds`, and are given up when all time that is `left` is over."""
    began = time.monotonic()
    heard: list[tuple[float, Answer]] = []
    trouble: list[Trouble] = []
    asked = 0

    async def work() -> None:
        nonlocal asked
        while time.monotonic() - began < seconds and asked < MOST and not trouble:
            asked += 1
            try:
                answer = await bench.chat.ask(_question(at_once * 1000 + asked))
                heard.append((time.monotonic() - began, answer))
            except Trouble as one:
                trouble.append(one)

    tasks = [asyncio.create_task(work()) for _ in range(at_once)]
    _, late = await asyncio.wait(tasks, timeout=left)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    took = max((t for t, _ in heard), default=0.0)
    tokens = sum(a.completion_tokens or 0 for _, a in heard)
    return Pace(at_once, len(heard), took, tokens), trouble[0] if trouble else None


def _question(number: int) -> Question:
    asks = (
        {"role": "system", "content": TASK},
        {"role": "user", "content": f"Case {number}: A. Share. B. Wait. C. Leave."},
    )
    return Question(asks, RATING, max_tokens=48, seed=number)


def _advice(bench: Bench) -> str:
    slots = whole(bench.server.props.get("total_slots")) if bench.server else None
    if slots and slots > 1:
        return f"it has {slots} slots, so one request at a time keeps the machine busy already"
    return ADVICE.get(bench.kind, "the server answers one at a time, or its machine is full")


def _found(bench: Bench, paces: list[Pace]) -> Finding:
    at = ", ".join(str(p.at_once) for p in paces)
    rates = ", ".join(f"{p.rate:.0f}" if p.rate >= 10 else f"{p.rate:.2g}" for p in paces)
    best = max(p.rate for p in paces)
    enough = next(p.at_once for p in paces if p.rate >= 0.9 * best)
    figures = {
        "best_at": enough,
        "levels": [
            {
                "at_once": p.at_once,
                "per_second": round(p.rate, 2),
                "tokens_per_second": round(p.tokens / p.seconds, 1) if p.seconds else 0.0,
                "answers": p.answers,
            }
            for p in paces
        ],
    }
    said = f"decisions a second with {at} at once: {rates}"
    if len(paces) < len(LEVELS):
        said += "; there was no time for more"
    alone = paces[0].rate
    if len(paces) > 1 and best < GAIN * alone:
        return warning("throughput", f"{said}; several are no faster", _advice(bench), **figures)
    return ok("throughput", said, **figures)
