"""Is the schema enforced? Asks for prose, under a schema that only a constrained decoder obeys.

The words are nonsense that stands nowhere in the prompt, and the range is one that nobody would
guess, so a valid answer cannot be good will; at temperature 1, so it cannot be habit either.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from align_dsl.engine.prompt import Shape, layout
from align_dsl.engine.quirks import GUIDANCE, VLLM, is_guidance, which_backend
from align_dsl.engine.refusal import BUSY
from align_dsl.servers.bench import Bench, answers, troubles
from align_dsl.servers.chat import Answer, Question
from align_dsl.servers.line import Trouble
from align_dsl.servers.report import Finding, fatal, ok, unknown, warning
from align_dsl.types import Scale

WORDS = ("vorpash", "quimble", "tazzik", "brolnet", "snurgle")
LOW, HIGH = 7341, 7349
PROSE = (
    {"role": "system", "content": "You write plain English prose, and never JSON or lists."},
    {"role": "user", "content": "Write one sentence about the sea."},
)
TIMES = 10
SECONDS = 60.0
NEVER = "answers of this server are not typed: do not use it for programs"
ADVICE = {
    "transformers serve": f"transformers serve ignores schemas; {NEVER}",
    "vLLM": "see that vLLM is 0.11 or newer, and that `--structured-outputs-config` names no other"
    " backend than `auto`, `xgrammar` or `guidance`",
    "Ollama": "Ollama enforces schemas from 0.5 on: update it; models of its cloud may not",
    "llama.cpp": "start llama-server with `--jinja`, and without a chat template or parser that"
    " overrides the grammar",
}
USE_GUIDANCE = 'start vLLM with `--structured-outputs-config \'{"backend":"guidance"}\'`'
# `zone` before `level`: an alphabet would put them the other way round
NONSENSE = Shape((("zone", "label"), ("level", "number")), WORDS, Scale(low=LOW, high=HIGH, step=1))
SHARE = Shape((("share", "number"),), (), Scale(low=0.25, high=0.3, step=0.01))
CHOICE = Shape((("because", "text"), ("choice", "label")), ("A", "B"))


def nonsense(seed: int) -> Question:
    return Question(PROSE, NONSENSE, seed=seed)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one answer to `nonsense` is."""

    obeys: bool  # the shape and the words
    in_range: bool | None  # the integer, where there is one
    order: tuple[str, ...]
    said: str


def verdict(answer: Answer) -> Verdict:
    said = _loaded(answer.text)
    if not isinstance(said, dict):
        return Verdict(False, None, (), answer.text)
    level = said.get("level")
    whole = isinstance(level, int) and not isinstance(level, bool)
    obeys = said.keys() == {"zone", "level"} and said["zone"] in WORDS and whole
    in_range = LOW <= level <= HIGH if whole and isinstance(level, int) else None
    return Verdict(obeys, in_range, tuple(said), answer.text)


def _may_become(text: str) -> bool:
    """Whether what was cut off could have become an answer: a constrained one always could."""
    began = "".join(text.split())
    starts = ('{"zone"', '{"level"')
    return any(began.startswith(s) or s.startswith(began) for s in starts)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


async def probe_backend(bench: Bench) -> list[Finding]:
    """vLLM only, which does not tell. As the engine does, before anything that is to be held."""
    chat = bench.chat
    if chat.kind is not VLLM:
        return []
    try:
        url = f"{chat.subject.endpoint}/chat/completions"
        heard = await chat.line.post(url, which_backend(chat.subject.name), chat.patience)
    except Trouble as trouble:
        return [unknown("backend", f"could not be told: {trouble}")]
    if is_guidance(heard.status, heard.json()):
        chat.kind = GUIDANCE
        return [ok("backend", "guidance holds its answers", guidance=True)]
    if heard.status != 200:
        return [unknown("backend", f"could not be told: HTTP {heard.status}")]
    said = "not guidance, so by default xgrammar, which keeps some tokens out that the form allows:"
    said += " words may come out otherwise than the model would have them"
    return [warning("backend", said, USE_GUIDANCE, guidance=False)]


async def probe_schema(bench: Bench) -> list[Finding]:
    asked = [nonsense(seed) for seed in range(1, TIMES + 1)]
    got = await bench.chat.all(asked, max(SECONDS, bench.chat.patience))
    heard, failed = answers(got), troubles(got)
    whole = [verdict(a) for a in heard if not a.cut]
    cut = [a for a in heard if a.cut and not verdict(a).obeys and _may_become(a.text)]
    whole += [verdict(a) for a in heard if a.cut and a not in cut]
    good = [v for v in whole if v.obeys]
    figures = {
        "asked": len(got), "valid": len(good), "invalid": len(whole) - len(good),
        "cut": len(cut), "failed": len(failed),
    }  # fmt: skip
    first = _of_schema(bench, figures, whole, failed)
    if first.level == "fatal" or not good:
        return [first]
    return [first, _of_ranges(good), _of_order(good)]


def _of_schema(
    bench: Bench, figures: dict[str, Any], whole: list[Verdict], failed: list[Trouble]
) -> Finding:
    short = bench.chat.line.short
    asked, valid = figures["asked"], figures["valid"]
    count = f"{valid} of {asked} answers obey"
    advice = ADVICE.get(bench.kind, NEVER)
    bad = next((v.said for v in whole if not v.obeys), None)
    if bad is not None:
        how = "the schema is ignored" if not valid else "the schema is not enforced"
        return fatal("schema", f"{how}: {count}; one said: {short(bad)}", advice, **figures)
    if valid == asked and valid:
        means = "" if bench.chat.kind.held_by == "schema" else ", with the layout of the prompt"
        return ok("schema", f"enforced{means}: {count}, at temperature 1", **figures)
    if valid:
        why = f"{figures['cut']} ran into the token limit, {figures['failed']} failed"
        why += f" ({failed[0]})" if failed else ""
        return warning("schema", f"{count}; {why}", "raise `max_tokens` or see why", **figures)
    if failed and any(f.kind == "status" and f.status in {400, 415, 422, 500, 501} for f in failed):
        said = f"a request with a schema is refused: {failed[0]}"
        return fatal("schema", said, advice, **figures)
    # what never gave a typed answer cannot be called usable, whatever kept it from that
    if failed:
        why, advice = str(failed[0]), _after(failed[0])
    elif figures["cut"]:
        why = "every answer ran into the token limit"
    else:
        why, advice = "none in time", "raise --timeout"
    return fatal("schema", f"no typed answer came: {why}", advice, **figures)


def _after(trouble: Trouble) -> str:
    if trouble.kind == "timeout":
        return "raise --timeout, or see why a schema makes the server so slow"
    busy = trouble.status in BUSY
    return "try again when the server has room" if busy else "see the log of the server"


def _of_ranges(good: list[Verdict]) -> Finding:
    held = sum(v.in_range is True for v in good)
    said = f"{held} of {len(good)} from {LOW} to {HIGH}"
    figures = {"held": held, "asked": len(good)}
    if held == len(good):
        return ok("integer ranges", f"held: {said}", **figures)
    advice = "ratings off the scale will fail as `invalid`; use another server, or `rating: verbal`"
    return warning("integer ranges", f"not held: {said}", advice, **figures)


def _of_order(good: list[Verdict]) -> Finding:
    orders = {v.order for v in good}
    if orders == {("zone", "level")}:
        return ok("order", "properties come as the schema orders them")
    if orders == {("level", "zone")}:
        said = "properties come in alphabetical order, not in the schema's"
        advice = "nothing to do: `because` sorts before `choice` and `rating` as well"
        return warning("order", said, advice, alphabetical=True)
    return warning("order", "properties come in any order", "reasoning may follow the answer")


async def probe_numbers(bench: Bench) -> list[Finding]:
    asked = [Question(PROSE, SHARE, max_tokens=64, seed=seed) for seed in range(1, 5)]
    got = await bench.chat.all(asked, SECONDS / 2)
    heard = answers(got)
    held = 0
    for answer in heard:
        said = _loaded(answer.text)
        share = said.get("share") if isinstance(said, dict) else None
        if isinstance(share, int | float) and not isinstance(share, bool):
            held += 0.25 <= share <= 0.3
    said = f"{held} of {len(got)} from 0.25 to 0.3"
    figures: dict[str, Any] = {"held": held, "asked": len(got)}
    if got and held == len(got):
        return [ok("number ranges", f"held: {said}", **figures)]
    if not heard:
        why = str(troubles(got)[0]) if got else "no answer in time"
        return [unknown("number ranges", f"could not be told: {why}", **figures)]
    advice = "rate on whole numbers (a scale with `step: 1`, as 0 to 10 has it)"
    return [warning("number ranges", f"not held: {said}", advice, **figures)]


async def probe_text(bench: Bench) -> list[Finding]:
    """The very form that programs ask for: reasoning in free text, and then a choice."""
    asks = (
        {"role": "system", "content": f"Choose what is kinder.\n\n{layout(CHOICE)}"},
        {"role": "user", "content": "A boat leaks.\n\nChoices:\nA. Bail it out.\nB. Row on."},
    )
    asked = [Question(asks, CHOICE, max_tokens=700, seed=seed) for seed in range(1, 5)]
    got = await bench.chat.all(asked, SECONDS)
    heard, failed = answers(got), troubles(got)
    strict = lax = misplaced = cut = 0
    for answer in heard:
        said = _loaded(answer.text)
        if isinstance(said, dict):
            strict += 1
            misplaced += list(said) != ["because", "choice"]
        elif answer.cut:
            cut += 1
        else:
            lax += _lax(answer.text)
    figures: dict[str, Any] = {
        "asked": len(got),
        "json": strict,
        "control_characters": lax,
        "cut": cut,
    }
    figures["failed"] = len(failed)
    if misplaced:
        said = f"`choice` came before `because` in {misplaced} of {len(got)} answers"
        return [warning("text", said, "reasoning after the answer is no reasoning", **figures)]
    if len(got) and strict == len(got):
        said = f"reasoning, then a choice: {strict} of {len(got)} answers are JSON in that order"
        return [ok("text", said, **figures)]
    if not got or (cut and cut == len(got)):
        return [unknown("text", f"could not be told: {cut} answers were cut", **figures)]
    if lax:
        said = f"{lax} of {len(got)} answers hold raw control characters, so they are no JSON"
        return [warning("text", said, **figures)]
    if failed:
        advice = "some answers of a program will fail as this one did"
        if bench.kind == "llama.cpp":
            advice = "llama.cpp fails so on odd characters, which weak models write"
        return [
            warning("text", f"{len(failed)} of {len(got)} failed: {failed[0]}", advice, **figures)
        ]
    said = f"{strict} of {len(got)} answers are JSON; {cut} were cut off"
    advice = "raise `max_tokens`" if cut else ""
    if cut and bench.kind == "Ollama":
        advice += "; but Ollama also breaks an answer off where a model repeats itself"
    return [warning("text", said, advice, **figures)]


def _lax(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True
