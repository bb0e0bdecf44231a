"""Does a seed make answers repeat? The same prompt eight times alone, and eight times at once."""

from __future__ import annotations

from align_dsl.servers.bench import Bench, answers, troubles
from align_dsl.servers.chat import Question
from align_dsl.servers.report import Finding, ok, unknown, warning

ASKS = ({"role": "user", "content": "Write one sentence about a mountain."},)
TIMES = 8
SECONDS = 45.0


def _question(seed: int) -> Question:
    return Question(ASKS, max_tokens=24, seed=seed)


async def probe_seed(bench: Bench) -> list[Finding]:
    return [
        await _repeated(bench, "seed, alone", together=1),
        await _repeated(bench, "seed, at once", together=TIMES),
        await _different(bench),
    ]


async def _repeated(bench: Bench, name: str, together: int) -> Finding:
    got = await bench.chat.all([_question(7)] * TIMES, SECONDS, together)
    texts = [a.text for a in answers(got)]
    if len(texts) < 2:
        why = str(troubles(got)[0]) if got else f"no two answers within {SECONDS:g} s"
        return unknown(name, f"could not be told: {why}")
    most = max(texts.count(t) for t in texts)
    figures = {"asked": len(got), "answers": len(texts), "same": most}
    if most == len(texts):
        return ok(name, f"{most} answers to one prompt with one seed are identical", **figures)
    said = f"answers to one prompt with one seed differ: {most} of {len(texts)} are the same"
    advice = "what a run has asked is kept and not asked again; only a fresh run may differ"
    if together > 1:
        advice += ". Batches round differently; `concurrency: 1` avoids it, slowly"
    return warning(name, said, advice, **figures)


async def _different(bench: Bench) -> Finding:
    got = await bench.chat.all([_question(seed) for seed in (11, 12, 13)], SECONDS / 2, 1)
    texts = {a.text for a in answers(got)}
    if len(answers(got)) < 2:
        return unknown("sampling", "could not be told: too few answers")
    if len(texts) > 1:
        return ok("sampling", "other seeds give other answers at temperature 1")
    advice = "`samples:` above 1 and `rating: sampled` would draw the same answer again and again"
    return warning("sampling", "other seeds give the same answer at temperature 1", advice)
