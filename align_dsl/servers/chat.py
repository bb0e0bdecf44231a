"""A question of a probe -> the request of a dialect; the server's answer -> canonical form.

The requests are those that the engine makes, plus what only a probe asks for. Servers that take a
grammar are sent one where others are sent a schema, as the engine does it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from align_dsl.engine.grammar import held
from align_dsl.engine.prompt import Shape, schema
from align_dsl.engine.quirks import PLAIN, Dialect
from align_dsl.servers.line import Heard, Line, Trouble, complaint, whole
from align_dsl.servers.subject import Subject

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    messages: tuple[Message, ...]
    shape: Shape | None = None  # what the answer is held to
    max_tokens: int = 96
    temperature: float = 1.0
    seed: int = 1
    logprobs: int = 0  # how many alternatives to each token
    context: int | None = None  # Ollama only, where it is part of a request
    truncate: bool | None = None  # Ollama only


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer, and what the server says it weighed it against."""

    text: str
    logprob: float
    others: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    cut: bool  # by the token limit
    seconds: float
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens: tuple[Token, ...] = ()


class Chat:
    """Asks one model. The context window is Ollama's `num_ctx`, the same in all requests: another
    would make it load the model anew."""

    def __init__(self, subject: Subject, line: Line, patience: float) -> None:
        self.subject, self.line, self.patience = subject, line, patience
        self.context = subject.model.context or 4096
        self.kind = PLAIN

    async def ask(self, question: Question, seconds: float | None = None) -> Answer:
        """Raises Trouble."""
        url, body = wire(self.subject, replace(question, context=self.context), self.kind)
        heard = await self.line.post(url, body, min(seconds or self.patience, self.patience))
        return self._read(heard)

    async def all(
        self, questions: Sequence[Question], seconds: float, together: int = 2
    ) -> list[Answer | Trouble]:
        """What came back in the given time, in the order of the questions; the rest is given up."""
        gate = asyncio.Semaphore(together)
        began = time.monotonic()

        async def one(question: Question) -> Answer | Trouble:
            async with gate:
                left = seconds - (time.monotonic() - began)
                try:
                    return await self.ask(question, max(left, 0.1))
                except Trouble as trouble:
                    return trouble

        tasks = [asyncio.create_task(one(q)) for q in questions]
        done, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return [t.result() for t in tasks if t in done]

    def _read(self, heard: Heard) -> Answer:
        short = self.line.short
        if wrong := complaint(heard):
            said = f"HTTP {heard.status}: {short(wrong)}"
            raise Trouble("status", said, heard.status)
        try:
            return read(heard.json(), heard.seconds)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            kind = "an HTML page" if heard.html else short(heard.text) or "nothing"
            raise Trouble("odd", f"an answer that is none: {kind}", heard.status) from None


class Hosted(Chat):
    """The same for a provider elsewhere: litellm sends the request whole."""

    async def ask(self, question: Question, seconds: float | None = None) -> Answer:
        self.line.requests += 1
        limit = min(seconds or self.patience, self.patience)
        began = time.monotonic()
        try:
            said = await asyncio.to_thread(self._complete, question, limit)
            return read(said, time.monotonic() - began)
        except Exception as error:  # litellm raises whatever a provider's package raises
            status = getattr(error, "status_code", 0)
            text = self.line.short(str(error).partition("Traceback")[0])
            raise Trouble("status", text, status if isinstance(status, int) else 0) from None

    def _complete(self, question: Question, seconds: float) -> Any:
        from align_dsl.engine.mapping import whole_litellm

        model = self.subject.model
        format_ = {"response_format": _format(question.shape)} if question.shape else {}
        answer = whole_litellm().completion(
            model=model.address,
            messages=list(question.messages),
            temperature=question.temperature,
            max_tokens=question.max_tokens,
            timeout=seconds,
            api_base=self.subject.endpoint or None,
            api_key=self.subject.key or None,
            max_retries=0,
            num_retries=0,
            drop_params=False,
            **format_,
        )
        return answer.model_dump()


def wire(subject: Subject, question: Question, kind: Dialect = PLAIN) -> tuple[str, dict[str, Any]]:
    """URL and body."""
    said = list(question.messages)
    if subject.dialect == "ollama":
        options = {
            "temperature": question.temperature,
            "num_predict": question.max_tokens,
            "num_ctx": question.context,
            "seed": question.seed,
        }
        body: dict[str, Any] = {"model": subject.name, "messages": said, "stream": False}
        body |= {"options": options, "think": False}
        body["keep_alive"] = subject.model.keep_alive or "5m"
        if question.shape is not None:
            body["format"] = schema(question.shape)
        if question.truncate is not None:
            body["truncate"] = question.truncate
        if question.logprobs:
            body |= {"logprobs": True, "top_logprobs": question.logprobs}
        return f"{subject.root}/api/chat", body
    body = {
        "model": subject.name,
        "messages": said,
        "temperature": question.temperature,
        "max_tokens": question.max_tokens,
        "seed": question.seed,
    }
    if question.shape is not None:
        if fields := held(question.shape, kind):
            body |= {k: v if isinstance(v, str) else asdict(v) for k, v in fields}
        else:
            body["response_format"] = _format(question.shape)
    if question.logprobs:
        body |= {"logprobs": True, "top_logprobs": question.logprobs}
    return f"{subject.endpoint}/chat/completions", body


def _format(shape: Shape) -> dict[str, Any]:
    inner = {"name": "answer", "schema": schema(shape), "strict": True}
    return {"type": "json_schema", "json_schema": inner}


def read(said: Any, seconds: float) -> Answer:
    """An answer in OpenAI's dialect or in Ollama's. Raises what a wrong form raises."""
    if "choices" in said:
        choice, usage = said["choices"][0], said.get("usage") or {}
        message, cut = choice["message"], choice.get("finish_reason") == "length"
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        steps = (choice.get("logprobs") or {}).get("content") or []
    else:
        message = said["message"]
        cut = said.get("done_reason") == "length" or not said.get("done", False)
        counts = said.get("prompt_eval_count"), said.get("eval_count")
        cached, steps = None, said.get("logprobs") or []
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("the content is not text")
    return Answer(
        text=text,
        cut=cut,
        seconds=seconds,
        prompt_tokens=whole(counts[0]),
        completion_tokens=whole(counts[1]),
        cached_tokens=whole(cached),
        tokens=tuple(_token(step) for step in steps),
    )


def _token(step: dict[str, Any]) -> Token:
    others = tuple((str(o["token"]), _finite(o["logprob"])) for o in step.get("top_logprobs") or ())
    return Token(str(step["token"]), _finite(step["logprob"]), others)


def _finite(logprob: Any) -> float:
    number = float(logprob)
    return number if math.isfinite(number) else -9999.0
