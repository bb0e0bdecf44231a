"""Does the server tell log-probabilities, and are they of before or after the schema's mask?

At temperature 0 under a schema the chosen token is the likeliest of those allowed. Where another is
shown as likelier, the numbers are from before the mask; where others are shown as impossible, or
what the schema dictates as certain, from after it.
"""

from __future__ import annotations

from align_dsl.servers.bench import Bench
from align_dsl.servers.chat import Question, Token
from align_dsl.servers.constraint import NONSENSE, PROSE
from align_dsl.servers.line import Trouble
from align_dsl.servers.report import Finding, ok, unknown, warning

IMPOSSIBLE = -1000.0  # no model is so sure: vLLM says -9999 of what is forbidden
SECONDS = 60.0  # vLLM has taken 26 for the first request of this kind
ADVICE = {
    "Ollama": "Ollama tells them from 0.12.11 on; until then only `rating: verbal` and `sampled`",
    "transformers serve": "only `rating: verbal` and `sampled` work here",
}
OTHERWISE = "`rating: expected` needs them; `verbal` and `sampled` do not"


async def probe_logprobs(bench: Bench) -> list[Finding]:
    question = Question(PROSE, NONSENSE, temperature=0.0, logprobs=5)
    advice = ADVICE.get(bench.kind, OTHERWISE)
    try:
        answer = await bench.chat.ask(question, SECONDS)
    except Trouble as trouble:
        if trouble.kind == "status":
            return [warning("logprobs", f"refused: {trouble}", advice)]
        return [unknown("logprobs", f"could not be told: {trouble}", advice)]
    if not answer.tokens:
        return [warning("logprobs", "none: asked for, and not sent", advice)]
    if not any(t.others for t in answer.tokens):
        return [warning("logprobs", "of the chosen tokens only, without alternatives", advice)]
    when = mask(answer.tokens)
    said = {
        "before": "yes, from before the schema's mask",
        "after": "yes, from after the schema's mask",
        "": "yes; before or after the schema's mask cannot be told",
    }[when]
    return [ok("logprobs", said, mask=when or None)]


def mask(tokens: tuple[Token, ...]) -> str:
    """`before`, `after`, or nothing where it cannot be told."""
    for token in tokens:
        best = max((p for _, p in token.others), default=token.logprob)
        if best > token.logprob + 0.01:
            return "before"
    if any(p <= IMPOSSIBLE for token in tokens for _, p in token.others):
        return "after"
    # `{"zone": "` is dictated to the letter, whatever tokens it is cut into
    dictated = tokens[:3]
    return "after" if all(t.logprob > -0.05 for t in dictated[1:]) and len(dictated) == 3 else ""
