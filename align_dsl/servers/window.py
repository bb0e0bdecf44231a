"""What becomes of a prompt that is longer than the context: refused, or silently cut?

Two short prompts show how many tokens the server counts for a line; a third, of more lines than
the context holds, shows whether it still counts all of them. Ollama's OpenAI dialect does not tell
which context that is before a model is loaded, and older versions never: there, contexts of usual
lengths are tried, the shortest first.
"""

from __future__ import annotations

from typing import Any

from align_dsl.engine.ollama import loaded_window
from align_dsl.engine.prompt import tokens as estimate
from align_dsl.errors import visible
from align_dsl.servers.bench import Bench
from align_dsl.servers.chat import Answer, Question
from align_dsl.servers.line import Trouble
from align_dsl.servers.report import Finding, ok, unknown, warning

LONGEST = 140_000  # tokens; a longer prompt would cost more than the answer is worth
LONGEST_UNREFUSED = 40_000  # the same for servers that might really read it
USUAL = (2048, 4096, 8192, 16_384, 32_768)  # tokens that Ollama may have been told to read
SECONDS = 60.0  # for each prompt
SHORT, LONGER = 10, 30  # lines
REFUSES = frozenset({400, 413, 422})
GOODS = ("salt", "rope", "timber", "lamps", "wool", "apples", "nails", "cloth")


def prompt(lines: int, salt: int) -> str:
    """Lines of prose. The salt comes first, so that no cache of prefixes saves the counting."""
    said = [
        f"Item {salt}-{i}: the boat carries {i * 7 % 90 + 10} crates of {GOODS[i % 8]} to the pier."
        for i in range(lines)
    ]
    return "\n".join([f"List {salt}.", *said, "Say when you have read this."])


async def probe_truncation(bench: Bench) -> list[Finding]:
    contexts = await _contexts(bench)
    if not contexts:
        return [unknown("long prompts", "not tried: the server does not tell its context")]
    most = LONGEST if bench.kind in {"vLLM", "llama.cpp", "Ollama"} else LONGEST_UNREFUSED
    if contexts[0] > most:
        return [unknown("long prompts", f"not tried: {contexts[0]:,} tokens are too many to send")]
    try:
        short, longer = await _counted(bench, SHORT, 1), await _counted(bench, LONGER, 2)
    except Trouble as trouble:
        return [_refused(trouble, int(estimate(prompt(LONGER, 2))))]
    if short is None or longer is None or longer <= short:
        return [_uncounted(short, longer)]
    per_line = (longer - short) / (LONGER - SHORT)
    for salt, context in enumerate(contexts, start=3):
        lines = int(context * 1.3 / per_line) + 20
        expected = int(short + per_line * (lines - SHORT))
        try:
            answer = await bench.chat.ask(_question(lines, salt), SECONDS)
        except Trouble as trouble:
            return [_refused(trouble, expected)]
        finding = await _taken(bench, answer, lines, expected)
        if finding.level != "ok":
            break
    if finding.level == "ok" and len(contexts) > 1 and context < (bench.context or 0):
        said = f"all of {finding.figures['counted']:,} tokens were read; longer ones were not tried"
        return [unknown("long prompts", said, **finding.figures)]
    return [finding]


async def _contexts(bench: Bench) -> list[int]:
    """What the context is, or may be."""
    if bench.kind != "Ollama":
        return [bench.context] if bench.context else []
    subject = bench.chat.subject
    if subject.dialect == "ollama":
        return [bench.chat.context]
    try:
        running = (await bench.chat.line.get(f"{subject.root}/api/ps")).mapping()
    except Trouble:
        running = {}
    loaded = loaded_window(running, subject.name)
    own = bench.context or USUAL[-1]
    return [loaded] if loaded else [c for c in USUAL if c < own] + [own] * (own <= USUAL[-1])


def _question(lines: int, salt: int, truncate: bool | None = None) -> Question:
    said = ({"role": "user", "content": prompt(lines, salt)},)
    return Question(said, max_tokens=1, temperature=0.0, truncate=truncate)


async def _counted(bench: Bench, lines: int, salt: int) -> int | None:
    return (await bench.chat.ask(_question(lines, salt), SECONDS)).prompt_tokens


def _uncounted(short: int | None, longer: int | None) -> Finding:
    if short is None or longer is None:
        said = "could not be told: the server does not count the tokens of a prompt"
    else:
        ours = estimate(prompt(LONGER, 2))
        said = f"could not be told: it counts {longer} tokens where about {ours:.0f} were sent"
    return unknown("long prompts", said)


def _refused(trouble: Trouble, expected: int) -> Finding:
    if trouble.status in REFUSES:
        return ok("long prompts", f"refused, not cut: {trouble}", sent=expected, refused=True)
    if trouble.kind == "status":
        said = f"a prompt of about {expected:,} tokens fails: {trouble}"
        return warning("long prompts", said, sent=expected, refused=True)
    return unknown("long prompts", f"could not be told: {trouble}", sent=expected)


async def _taken(bench: Bench, answer: Answer, lines: int, expected: int) -> Finding:
    counted = answer.prompt_tokens
    figures: dict[str, Any] = {"sent": expected, "counted": counted}
    if counted is None:
        return unknown("long prompts", "could not be told: no count of tokens", **figures)
    if counted > 0.9 * expected:
        return ok("long prompts", f"all {counted:,} tokens were read, context or not", **figures)
    said = f"silently cut: of about {expected:,} tokens the server read {counted:,}"
    if bench.kind != "Ollama":
        advice = "keep prompts well below the context; what is lost is lost without a word"
        return warning("long prompts", said, advice, **figures)
    if bench.chat.subject.dialect != "ollama":
        advice = f"write `ollama_chat/{visible(bench.chat.subject.name)}`, or raise"
        advice += " OLLAMA_CONTEXT_LENGTH: over /v1 no context can be asked for"
        return warning("long prompts", said, advice, **figures)
    try:
        await bench.chat.ask(_question(lines, 1000, truncate=False), SECONDS)
        refuses = False
    except Trouble as trouble:
        refuses = trouble.status in REFUSES
    if refuses:
        said += "; with `truncate: false` it refuses"
    advice = (
        "align-dsl asks Ollama for a context that holds the prompt; where the model's own is too"
        " small, use fewer `shots`, or a model with a longer context"
    )
    return warning("long prompts", said, advice, refuses_if_asked=refuses, **figures)
