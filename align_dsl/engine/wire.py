"""Requests to the servers that people run themselves: a question -> one POST -> what was said.

litellm decides what a request looks like for a provider, field by field; the shared event loop
writes it as compact JSON and sends it, at a twentieth of the cost of sending it through litellm.
Several servers of one model share the work: the one with the fewest requests in flight gets the
next, and one that fails rests a while.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial

import orjson

from align_dsl.engine.adapter import NoAnswer, NotNow, Trail
from align_dsl.engine.fork import outlives_forks
from align_dsl.engine.limiter import Closed, Endpoint, How, Limiter
from align_dsl.engine.looks import FORGOTTEN_SECONDS, Looks
from align_dsl.engine.loop import Loop
from align_dsl.engine.mapping import Parameters, litellm_module, template
from align_dsl.engine.ollama import loaded_window
from align_dsl.engine.prompt import Message
from align_dsl.engine.quirks import OLLAMA, PLAIN, Dialect, is_too_long
from align_dsl.engine.quirks import dialect as dialect_of
from align_dsl.engine.refusal import UNHEARD, is_a_no, is_loading, mood, refusal
from align_dsl.engine.reply import Complaint, Heard, Reply, read
from align_dsl.engine.session import CLOSED, Session
from align_dsl.engine.window import (
    STEP,
    TooNarrow,
    hold,
    most,
    widen,
    window_for,
)
from align_dsl.language.program import Model
from align_dsl.types import Failure

LOADING_SECONDS = 1.0  # how often a server is asked whether it has loaded its model
HINT = " (an endpoint of this kind often ends in `/v1`)"
MOST_LOOKS = 3  # after which one that answers questions, but not that one, is taken at its word

_PLAIN_NAME = re.compile(r"(:latest|@main|\.gguf|-\d{4}-\d\d-\d\d)$")

Asking = Callable[[Dialect], Parameters]
"""What is asked, for the kind of server that happens to get it."""

Told = tuple[Heard, Dialect, Endpoint]
"""What was said, how it was asked for, and by whom."""


class Wire:
    """The servers of one model, over connections that stay open."""

    def __init__(
        self,
        model: Model,
        provider: str,
        name: str,
        urls: Sequence[str],
        key: Callable[[], str],
        scrubbed: Callable[[str], str],
    ) -> None:
        self.model, self.provider, self.name = model, provider, name
        self.scrubbed = scrubbed
        self.limiter = self._limiter(urls)
        self.session = Session(model.timeout, key, scrubbed)
        self.looks = self._looks()
        self._used = False
        outlives_forks(self)

    def begin_anew(self) -> None:
        """In the child of a fork: what is in flight holds no place here."""
        self._used, closed = False, self.limiter.closed
        self.limiter = self._limiter([endpoint.url for endpoint in self.endpoints])
        self.limiter.closed = closed
        self.looks = self._looks()

    def _looks(self) -> Looks:
        return Looks(self.provider, self.name, self.model.timeout, self.session, self.limiter)

    def _limiter(self, urls: Sequence[str]) -> Limiter:
        limiter = Limiter.of(urls, self.model.concurrency)
        for endpoint in limiter.endpoints:
            endpoint.is_a({"ollama_chat": OLLAMA}.get(self.provider, PLAIN))
        return limiter

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return self.limiter.endpoints

    @property
    def batches(self) -> bool:
        """Whether what begins alike may come all at once."""
        return all(endpoint.dialect.batches for endpoint in self.endpoints)

    def look(self, silent: Collection[str] = ()) -> None:
        """Learn what kind of servers answer, before the first question, which else would wait for
        it. Those that were found `silent` are left alone for a while."""
        litellm_module()  # takes seconds, in which the loop could do nothing else
        self._used = True
        Loop.shared().do(self.looks.all(silent))

    def ask(
        self,
        said: list[Message],
        asking: Asking,
        trail: Trail,
        seed: int | None,
    ) -> Told:
        """What one of the servers says. Raises NotNow or NoAnswer."""
        self._used = True
        told: Told = Loop.shared().do(self._in_turn(said, asking, trail, seed))
        return told

    def close(self) -> None:
        """End what is in flight, and send away who waits."""
        if self._used:
            Loop.shared().do(self._end())

    # --- what is sent ------------------------------------------------------------------------

    def request(
        self, said: list[Message], parameters: Parameters, seed: int | None, endpoint: Endpoint
    ) -> tuple[str, bytes]:
        """URL and body, as litellm itself would send them; and what only this server knows."""
        url, body = template(self.provider, self.name, endpoint.url, parameters)(said)
        if parameters.extra:
            body = {**body, **dict(parameters.extra)}
        if self.provider == "ollama_chat":
            context = window_for(said, parameters.max_tokens, endpoint, self.model)
            body["options"] = {**body["options"], "num_ctx": context}
            if seed is not None:
                body["options"]["seed"] = seed
            body["think"] = False
            body["truncate"] = False
            body["keep_alive"] = self.model.keep_alive or "5m"
        elif seed is not None:
            body["seed"] = seed
        return url, orjson.dumps(body)

    # --- sending -----------------------------------------------------------------------------

    async def _in_turn(
        self, said: list[Message], asking: Asking, trail: Trail, seed: int | None
    ) -> Told:
        """Send when a server has room, and learn from how it went how much room it has.

        A server that is loading its model is asked again until it has, for as long as an answer
        may take: that is no fault of the question, and so none of its tries.
        """
        while True:
            trail.waits = True
            try:
                endpoint = await self.limiter.take(trail.avoid, trail.at)
            except Closed:
                raise NoAnswer(CLOSED) from None
            finally:
                trail.waits = False
            how: How = "unsaid"
            rest: float | None = None
            try:
                if endpoint.loading_since is not None and self._is_hopeless(endpoint, trail):
                    how, rest = "loading", FORGOTTEN_SECONDS
                    continue
                if not endpoint.looked:
                    await self.looks.meet(endpoint)
                dialect = endpoint.dialect
                url, body = self.request(said, asking(dialect), seed, endpoint)
                trail.calls += 1
                try:
                    reply = await self.session.post(endpoint.url, url, body)
                except NotNow:
                    trail.hear(False)
                    raise
                trail.hear(reply.status not in UNHEARD)
                how, rest = self._learn(endpoint, reply)
            except NotNow as not_now:
                endpoint.gone = not_now.failure.status != "timeout"
                how = "down" if endpoint.gone else "busy"
                self._avoid(endpoint, trail)
                raise
            finally:
                self.limiter.give_back(endpoint, how, rest)
            if how == "loading":
                trail.go_on()
                continue
            trail.judge = partial(self._judge, endpoint, trail)
            try:
                heard = self._read(endpoint, reply, how)
                trail.spend(heard.prompt_tokens, heard.completion_tokens)
                await self._hold(heard, said, body, endpoint, trail)
            except NotNow:
                if reply.status == 200:
                    trail.judged(False)
                else:
                    self._avoid(endpoint, trail)
                raise
            except NoAnswer as no:
                trail.spend(*no.tokens)
                if self._widens(no, endpoint, body):
                    trail.go_on()
                    continue
                if not is_a_no(reply) and trail.judged(False):
                    raise NotNow(no.failure, 0.0) from None
                raise
            if not _is_called(self.name, heard.by):
                trail.notes["answered_by"] = heard.by
            return heard, dialect, endpoint

    def _avoid(self, endpoint: Endpoint, trail: Trail) -> None:
        """Let another be asked, as long as there is one that has not failed this job as well."""
        if len(trail.avoid) + 1 >= len(self.endpoints):
            trail.avoid.clear()
        trail.avoid.add(endpoint.url)

    def _judge(self, endpoint: Endpoint, trail: Trail, is_good: bool) -> bool:
        """What an answer was worth; whether another should be asked what this one has spoilt."""
        is_better = self.limiter.judge(endpoint, is_good, trail.avoid)
        if not is_good:
            self._avoid(endpoint, trail)
        return is_better

    def _is_hopeless(self, endpoint: Endpoint, trail: Trail) -> bool:
        """Whether a server has been loading for longer than an answer may take. Raises NoAnswer
        where all have, and NotNow where another can be asked, but not in the midst of this."""
        if not self._is_late(endpoint):
            return False
        message = f"{endpoint.url} was still loading its model after {self.model.timeout:g} s"
        failure = Failure(status="unreachable", message=message)
        if all(self._is_late(e) for e in self.endpoints):
            trail.gone = True
            raise NoAnswer(failure)
        if len(trail.at) == 1:
            raise NotNow(failure)
        return True

    def _is_late(self, endpoint: Endpoint) -> bool:
        if endpoint.loading_since is None:
            return False
        seconds = self.limiter.clock() - endpoint.loading_since
        if seconds > self.model.timeout + FORGOTTEN_SECONDS:
            endpoint.loading_since = None  # perhaps it has come to its end meanwhile
            return False
        return seconds > self.model.timeout

    def _learn(self, endpoint: Endpoint, reply: Reply) -> tuple[How, float | None]:
        """What a reply says of its server: how it goes, and how long it wants to be left alone."""
        if endpoint.dialect is PLAIN and reply.server:
            endpoint.is_a(dialect_of({}, reply.server))
            endpoint.looked = endpoint.looked or endpoint.dialect is not PLAIN
        if reply.status == 200:
            endpoint.loading_since, endpoint.gone = None, False
            endpoint.looked = endpoint.looked or endpoint.looks >= MOST_LOOKS
            return "ok", None
        if is_loading(reply):
            if endpoint.loading_since is None:
                endpoint.loading_since = self.limiter.clock()
            return "loading", LOADING_SECONDS
        endpoint.loading_since, endpoint.gone = None, is_a_no(reply)
        return mood(reply, self._text(reply), endpoint, self.endpoints)

    async def _end(self) -> None:
        self.limiter.close()
        await self.session.close()

    # --- what comes back ---------------------------------------------------------------------

    def _read(self, endpoint: Endpoint, reply: Reply, how: How) -> Heard:
        if reply.status != 200:
            hint = "" if self.provider == "ollama_chat" else HINT
            is_one = len(self.endpoints) == 1
            raise refusal(reply, self._text(reply), endpoint.url, how, is_one, hint)
        try:
            heard = read(orjson.loads(reply.body), self.scrubbed)
        except Complaint as complaint:
            message = f"{endpoint.url} answered with an error: {str(complaint)[:300]}"
            raw = self._text(reply)
            if is_too_long(raw):
                raise NoAnswer(Failure(status="truncated", message=message, raw=raw)) from None
            raise NotNow(Failure(status="refused", message=message, raw=raw)) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raw = self._text(reply)
            message = f"{endpoint.url} sent something that is no answer: {raw[:200]}"
            raise NotNow(Failure(status="invalid", message=message, raw=raw)) from None
        return heard

    async def _hold(
        self, heard: Heard, said: list[Message], body: bytes, endpoint: Endpoint, trail: Trail
    ) -> None:
        """Raises TooNarrow where an Ollama has cut the question."""
        if self.provider == "ollama_chat":
            context = _sent_window(body)
        elif endpoint.dialect is OLLAMA and most(said) > STEP:  # less fits into any
            if not endpoint.context:  # over /v1 none can be asked for
                root = endpoint.url.removesuffix("/v1")
                _, running, _ = await self.session.told("GET", f"{root}/api/ps")
                endpoint.context = loaded_window(running, self.name) or 0
            context = endpoint.context
        else:
            return
        await hold(heard, said, context, endpoint, lambda part: self._count(part, endpoint, trail))

    async def _count(self, said: list[Message], endpoint: Endpoint, trail: Trail) -> int:
        """How many tokens a server reads of a question. Raises NotNow or NoAnswer."""
        trail.go_on()
        url, body = self.request(said, Parameters(0.0, 1, b""), None, endpoint)
        try:
            await self.limiter.take(at=(endpoint.url,))
        except Closed:
            raise NoAnswer(CLOSED) from None
        how: How = "unsaid"
        rest: float | None = None
        try:
            trail.calls += 1
            reply = await self.session.post(endpoint.url, url, body)
            trail.hear(reply.status not in UNHEARD)
            how, rest = self._learn(endpoint, reply)
        except NotNow:
            trail.hear(False)
            how = "busy"
            raise
        finally:
            self.limiter.give_back(endpoint, how, rest)
        counted = self._read(endpoint, reply, how)
        trail.spend(counted.prompt_tokens, counted.completion_tokens)
        return counted.prompt_tokens

    def _widens(self, no: NoAnswer, endpoint: Endpoint, body: bytes) -> bool:
        """Whether a question that did not fit can be asked again, with a longer window."""
        is_refused = no.failure.status == "truncated" and is_too_long(no.failure.raw)
        if self.provider != "ollama_chat" or not (is_refused or isinstance(no, TooNarrow)):
            return False
        if is_refused:
            endpoint.refuses = True
        return widen(endpoint, self.model, _sent_window(body))

    def _text(self, reply: Reply) -> str:
        return self.scrubbed(reply.body.decode("utf-8", "replace"))


def _sent_window(body: bytes) -> int:
    window: int = orjson.loads(body)["options"]["num_ctx"]
    return window


@lru_cache(maxsize=256)
def _is_called(name: str, by: str) -> bool:
    """Whether a server may call a model so. Some add a tag, a date or a path.

    >>> _is_called("qwen3", "qwen3:latest"), _is_called("gpt-4o", "gpt-4o-2024-08-06")
    (True, True)
    >>> _is_called("org/tiny", "org/tiny@main")
    True
    >>> _is_called("qwen3", "qwen3-coder")
    False
    """
    asked, told = (_PLAIN_NAME.sub("", n.lower().rpartition("/")[2]) for n in (name, by))
    return not told or asked == told
