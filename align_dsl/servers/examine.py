"""A subject -> a report: every probe, one after the other, as far as it makes sense to go on.

Nothing that a server does gets out of here as an exception.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from align_dsl.engine.quirks import DIALECTS, PLAIN
from align_dsl.servers.bench import Bench
from align_dsl.servers.chat import Chat, Hosted, Question
from align_dsl.servers.constraint import (
    PROSE,
    probe_backend,
    probe_numbers,
    probe_schema,
    probe_text,
)
from align_dsl.servers.likelihood import probe_logprobs
from align_dsl.servers.line import LOOK_SECONDS, Line, Trouble
from align_dsl.servers.presence import presence
from align_dsl.servers.report import Finding, Report, fatal, ok, unknown, warning
from align_dsl.servers.sameness import probe_seed
from align_dsl.servers.server import NoServer, Server, identify
from align_dsl.servers.subject import Subject
from align_dsl.servers.throughput import probe_throughput
from align_dsl.servers.window import probe_truncation

Probe = Callable[[Bench], Awaitable[list[Finding]]]
Tell = Callable[[Finding], None]

PATIENCE = 120.0  # seconds for one answer; the first may have to load the model
CACHE_SECONDS = 30.0
TYPED: tuple[Probe, ...] = (
    probe_backend,
    probe_schema,
    probe_numbers,
    probe_text,
    probe_logprobs,
)
REST: tuple[Probe, ...] = (probe_seed, probe_truncation)
START = {
    "ollama": "start it with `ollama serve`, or name where it is with --endpoint or `endpoint:`",
    "openai": "start the server, or name where it is with --endpoint or `endpoint:`",
}


@dataclass(slots=True)
class Notes:
    """A report while it is written."""

    tell: Tell
    scrubbed: Callable[[str], str]
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, *found: Finding) -> None:
        for one in found:
            shown = {"said": self.scrubbed(one.said), "advice": self.scrubbed(one.advice)}
            finding = one.model_copy(update=shown)
            self.findings.append(finding)
            self.tell(finding)

    @property
    def bad(self) -> bool:
        return any(f.level == "fatal" for f in self.findings)


async def examine(
    subject: Subject,
    *,
    quick: bool = False,
    patience: float = PATIENCE,
    tell: Tell = lambda finding: None,
) -> Report:
    """Probe one model. `quick` leaves the throughput out."""
    began = time.monotonic()
    line = Line(subject.key, min(LOOK_SECONDS, patience))
    notes = Notes(tell, line.scrubbed)
    _tell_key(subject, notes)
    async with AsyncExitStack() as stack:
        if subject.dialect == "gguf":
            subject, line = _served(subject, stack, notes)
        await stack.enter_async_context(line)
        if notes.bad:
            pass
        elif subject.dialect == "none":
            notes.add(ok("server", f"{subject.model.backend} answers by itself: no server"))
        elif subject.dialect == "hosted":
            await _hosted(Hosted(subject, line, patience), notes)
        else:
            await _own(subject, line, notes, quick, patience)
    return Report(
        model=subject.model.name,
        address=subject.model.address or subject.model.backend,
        endpoint="" if subject.dialect in {"none", "gguf"} else subject.endpoint,
        usable=not notes.bad,
        requests=line.requests,
        seconds=round(time.monotonic() - began, 2),
        findings=tuple(notes.findings),
        **notes.facts,
    )


def _tell_key(subject: Subject, notes: Notes) -> None:
    name = subject.model.key
    if name and subject.key:
        notes.add(ok("key", f"the environment variable {name} is set"))
    elif name:
        said = f"the environment variable {name} is not set"
        notes.add(fatal("key", said, "set it, or leave `key:` out where the server wants none"))


async def _own(subject: Subject, line: Line, notes: Notes, quick: bool, patience: float) -> None:
    server = await _server(subject, line, notes)
    if server is None:
        return
    found = await presence(line, subject, server)
    notes.add(*found.findings)
    notes.facts["context"] = found.context
    notes.facts.setdefault("digest", found.digest)
    if notes.bad:
        return
    chat = Chat(subject, line, patience)
    chat.kind = next((d for d in DIALECTS if d.server == server.kind), PLAIN)
    if found.context and server.kind == "Ollama":
        chat.context = min(chat.context, found.context)
    bench = Bench(chat, server, found.context)
    if not await _answers(chat, notes):
        return
    for probe in TYPED:
        notes.add(*await probe(bench))
        if notes.bad:  # what is not typed is of no use, however fast it is
            return
    for probe in REST:
        notes.add(*await probe(bench))
    await _cache(bench, notes)
    if not quick:
        notes.add(*await probe_throughput(bench))


async def _server(subject: Subject, line: Line, notes: Notes) -> Server | None:
    try:
        server = await identify(line, subject.endpoint)
    except Trouble as trouble:
        said = f"{subject.endpoint}: {trouble}"
        notes.add(fatal("reachable", said, trouble.advice or START.get(subject.dialect, "")))
        return None
    except NoServer as other:
        notes.add(fatal("reachable", f"{subject.endpoint}: {other}", other.advice))
        return None
    if subject.dialect != "gguf":
        notes.add(ok("reachable", f"{server.seconds * 1000:.0f} ms", seconds=server.seconds))
    notes.facts |= {"server": server.kind, "version": line.short(server.version)}
    if server.kind == "OpenAI-compatible":
        notes.add(unknown("server", "some server that speaks OpenAI's dialect; which is not told"))
    elif server.kind == "transformers serve":
        said = "transformers serve, which enforces no schema in any version seen so far"
        notes.add(warning("server", said, "use vLLM, llama.cpp or Ollama"))
    else:
        version = line.short(server.version)
        notes.add(ok("server", f"{server.kind} {version or 'of unknown version'}"))
    return server


async def _answers(chat: Chat, notes: Notes) -> bool:
    """One token, without a schema: whether the model answers at all. May have to load it first."""
    try:
        answer = await chat.ask(Question(PROSE, max_tokens=1))
    except Trouble as trouble:
        advice = {
            "timeout": "a large model takes its time to load: try again, or raise --timeout",
            "cut": "see the log of the server",
        }.get(trouble.kind, "")
        if trouble.status == 404:
            advice = "see that the model's name and the endpoint are right"
        if trouble.status == 400 and "pinned" in str(trouble):
            advice = "write the name that it was started with"
        if trouble.status in {401, 403}:
            advice = "name the variable that holds the key: `key:` in a program, or --key"
        notes.add(fatal("answers", f"a plain question fails: {trouble}", advice))
        return False
    notes.add(ok("answers", f"the first after {answer.seconds:.2g} s", seconds=answer.seconds))
    return True


async def _cache(bench: Bench, notes: Notes) -> None:
    """Whether a prompt that begins like an earlier one is read faster, as far as servers tell."""
    long = ({"role": "user", "content": PROSE[0]["content"] * 40},)
    question = Question(long, max_tokens=1)
    try:
        await bench.chat.ask(question, CACHE_SECONDS)
        again = await bench.chat.ask(question, CACHE_SECONDS)
    except Trouble as trouble:
        notes.add(unknown("prefix cache", f"could not be told: {trouble}"))
        return
    figures = {"prompt_tokens": again.prompt_tokens, "cached_tokens": again.cached_tokens}
    if again.cached_tokens is None:
        flag = "start vLLM with `--enable-prompt-tokens-details` to see it in reports"
        advice = flag if bench.kind == "vLLM" else ""
        notes.add(unknown("prefix cache", "the server does not tell", advice, **figures))
    elif again.cached_tokens:
        said = f"{again.cached_tokens} of {again.prompt_tokens} tokens of a repeated prompt"
        notes.add(ok("prefix cache", f"works: {said} were not read again", **figures))
    else:
        advice = "see `--enable-prefix-caching`" if bench.kind == "vLLM" else ""
        notes.add(warning("prefix cache", "a repeated prompt was read anew", advice, **figures))


async def _hosted(chat: Hosted, notes: Notes) -> None:
    notes.facts["server"] = "a provider, through litellm"
    said = "a provider elsewhere: every probe is billed, so few are made"
    notes.add(ok("server", said))
    if not await _answers(chat, notes):
        return
    for probe in (probe_schema, probe_text):
        notes.add(*await probe(Bench(chat, None)))
        if notes.bad:
            return
    left_out = "not tried at a provider that bills"
    notes.add(*(unknown(p, left_out) for p in ("seed", "long prompts", "throughput")))


def _served(subject: Subject, stack: AsyncExitStack, notes: Notes) -> tuple[Subject, Line]:
    """A model file, served by this very process for as long as it is examined."""
    from align_dsl.servers.gguf import NotServed, serve

    try:
        served = serve(subject.model.address, subject.model.context, stack)
    except NotServed as why:
        notes.add(fatal("reachable", str(why), why.advice))
        return subject, Line()
    notes.add(ok("digest", served.digest))
    notes.facts["digest"] = served.digest
    return replace(subject, endpoint=served.endpoint), Line(served.key)
