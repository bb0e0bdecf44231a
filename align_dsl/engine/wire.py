"""Requests to the servers that people run themselves: a question -> one POST -> what was said.

litellm decides what a request looks like for a provider, byte for byte; the shared event loop sends
it, at a twentieth of the cost of sending it through litellm. Several servers of one model share the
work: the one with the fewest requests in flight gets the next, and one that fails rests a while.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import orjson

from align_dsl.engine.adapter import NoAnswer, NotNow, Trail
from align_dsl.engine.limiter import Endpoint, How, Limiter
from align_dsl.engine.loop import Loop
from align_dsl.engine.mapping import Parameters, litellm_module, template
from align_dsl.engine.prompt import Message, tokens
from align_dsl.engine.quirks import OLLAMA, PLAIN, TOO_LONG, Dialect
from align_dsl.engine.quirks import dialect as dialect_of
from align_dsl.engine.reply import Complaint, Heard, Reply, read, seconds_of
from align_dsl.language.program import Model
from align_dsl.types import Failure

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
TOO_MUCH = frozenset({408, 429, 503, 504})  # of these it is said: fewer at once
CONNECT_SECONDS = 10
IDLE_SECONDS = 4  # uvicorn, and so vLLM, hangs up after 5: do not send on a line about to go dead
LOADING_SECONDS = 1.0  # how often a server is asked whether it has loaded its model
FORGOTTEN_SECONDS = 60.0  # how long one that loads for ever is not asked again
LOADING = b"loading"  # as in "Loading model", which llama.cpp says with a 503
WINDOW_STEP = 2048  # tokens: with steps, Ollama seldom has to load a model anew

_PLAIN_NAME = re.compile(r"(:latest|\.gguf|-\d{4}-\d\d-\d\d)$")

Asking = Callable[[Dialect], Parameters]
"""What is asked, for the kind of server that happens to get it."""


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
        self.key, self.scrubbed = key, scrubbed
        self.limiter = Limiter.of(urls, model.concurrency)
        known = {"ollama_chat": OLLAMA}.get(provider, PLAIN)
        for endpoint in self.endpoints:
            endpoint.is_a(known)
        self._session: Any = None

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return self.limiter.endpoints

    @property
    def batches(self) -> bool:
        """Whether what begins alike may come all at once."""
        return all(endpoint.dialect.batches for endpoint in self.endpoints)

    def look(self) -> None:
        """Learn what kind of servers answer. One that does not say is taken at its word.

        Where nobody looks, it is learnt from the first reply.
        """
        litellm_module()  # takes seconds, in which the loop could do nothing else
        Loop.shared().do(self._look())

    def ask(
        self,
        said: list[Message],
        asking: Asking,
        trail: Trail,
        seed: int | None,
    ) -> tuple[Heard, Dialect]:
        """What one of the servers says, and of which kind it is. Raises NotNow or NoAnswer."""
        heard: tuple[Heard, Dialect] = Loop.shared().do(self._in_turn(said, asking, trail, seed))
        return heard

    def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            Loop.shared().do(_ended(session))

    # --- what is sent ------------------------------------------------------------------------

    def request(
        self, said: list[Message], parameters: Parameters, seed: int | None, endpoint: Endpoint
    ) -> tuple[str, bytes]:
        """URL and body, as litellm itself would send them; and what only this server knows."""
        url, body = template(self.provider, self.name, endpoint.url, parameters)(said)
        if parameters.extra:
            body = {**body, **dict(parameters.extra)}
        if self.provider == "ollama_chat":
            context = self._context(said, parameters.max_tokens, endpoint)
            body["options"] = {**body["options"], "num_ctx": context}
            if seed is not None:
                body["options"]["seed"] = seed
            body["think"] = False
            body["truncate"] = False
            body["keep_alive"] = self.model.keep_alive or "5m"
        elif seed is not None:
            body["seed"] = seed
        return url, orjson.dumps(body)

    def _context(self, said: list[Message], max_tokens: int, endpoint: Endpoint) -> int:
        """A window that holds prompt and answer, no longer than the model's own."""
        least = _words(said) + 1
        need = sum(tokens(m["content"]) for m in said) * 1.3 + max_tokens + 64
        window = self.model.context or endpoint.window
        if window is not None and least > window:
            message = f"the question has at least {least:,} tokens, and the model reads {window:,}"
            raise NoAnswer(Failure(status="truncated", message=message))
        if self.model.context is not None:
            return self.model.context
        steps = int(WINDOW_STEP * -(-need // WINDOW_STEP))
        endpoint.context = max(endpoint.context, min(steps, window or steps))
        return endpoint.context

    # --- sending -----------------------------------------------------------------------------

    async def _in_turn(
        self, said: list[Message], asking: Asking, trail: Trail, seed: int | None
    ) -> tuple[Heard, Dialect]:
        """Send when a server has room, and learn from how it went how much room it has.

        A server that is loading its model is asked again until it has, for as long as an answer
        may take: that is no fault of the question, and so none of its tries.
        """
        while True:
            endpoint = await self.limiter.take(trail.avoid)
            how: How = "unsaid"
            rest: float | None = None
            try:
                self._has_hope(endpoint)
                dialect = endpoint.dialect
                url, body = self.request(said, asking(dialect), seed, endpoint)
                trail.calls += 1
                reply = await self._post(endpoint, url, body)
                is_loading = self._learn(endpoint, reply)
                if reply.status in TOO_MUCH:
                    how, rest = "busy", LOADING_SECONDS if is_loading else reply.retry_after
                elif reply.status < 500:
                    how = "ok"
                elif len(self.endpoints) > 1:
                    how = "down"  # perhaps it is the question; but others can be asked meanwhile
            except NotNow as not_now:
                how = "busy" if not_now.failure.status == "timeout" else "down"
                trail.avoid = endpoint.url
                raise
            finally:
                self.limiter.give_back(endpoint, how, rest)
            if is_loading:
                continue
            try:
                heard = self._read(endpoint, reply, said, body)
            except NotNow:
                trail.avoid = endpoint.url
                raise
            if not _is_called(self.name, heard.by):
                trail.notes["answered_by"] = heard.by
            return heard, dialect

    def _learn(self, endpoint: Endpoint, reply: Reply) -> bool:
        """What a reply says of its server; whether it is loading its model."""
        if endpoint.dialect is PLAIN and reply.server:
            endpoint.is_a(dialect_of({}, reply.server))
        is_loading = reply.status == 503 and LOADING in reply.body.lower()
        if not is_loading:
            endpoint.loading_since = None
        elif endpoint.loading_since is None:
            endpoint.loading_since = self.limiter.clock()
        return is_loading

    def _has_hope(self, endpoint: Endpoint) -> None:
        """Raises NoAnswer where a server has been loading for longer than an answer may take."""
        since, now = endpoint.loading_since, self.limiter.clock()
        if since is None or now - since <= self.model.timeout:
            return
        if now - since > self.model.timeout + FORGOTTEN_SECONDS:
            endpoint.loading_since = None  # perhaps it has come to its end meanwhile
            return
        message = f"{endpoint.url} was still loading its model after {self.model.timeout:g} s"
        raise NoAnswer(Failure(status="unreachable", message=message))

    async def _post(self, endpoint: Endpoint, url: str, body: bytes) -> Reply:
        import aiohttp

        if self._session is None:
            self._session = self._connected()
        try:
            # redirects could carry a key elsewhere
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                raw = await response.read()
                later = seconds_of(response.headers.get("Retry-After"))
                return Reply(response.status, raw, later, response.headers.get("Server", ""))
        except aiohttp.ClientConnectorError as error:
            wrong = f"{endpoint.url} cannot be reached: {error}"
        except aiohttp.ConnectionTimeoutError:
            wrong = f"{endpoint.url} cannot be reached within {CONNECT_SECONDS} s"
        except TimeoutError:
            message = f"no answer within {self.model.timeout:g} s from {endpoint.url}"
            raise NotNow(Failure(status="timeout", message=message)) from None
        except (aiohttp.ClientError, OSError) as error:
            wrong = f"{endpoint.url} hung up before its answer was complete: {error}"
        raise NotNow(Failure(status="unreachable", message=self.scrubbed(wrong)))

    def _connected(self) -> Any:
        import aiohttp

        headers = {"Content-Type": "application/json"}
        if key := self.key():
            headers["Authorization"] = f"Bearer {key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.model.timeout, sock_connect=CONNECT_SECONDS),
        )

    # --- what comes back ---------------------------------------------------------------------

    def _read(self, endpoint: Endpoint, reply: Reply, said: list[Message], body: bytes) -> Heard:
        if reply.status != 200:
            raise self._refusal(endpoint, reply, self._text(reply))
        try:
            heard = read(orjson.loads(reply.body), self.scrubbed)
        except Complaint as complaint:
            message = f"{endpoint.url} answered with an error: {str(complaint)[:300]}"
            raw = self._text(reply)
            raise NotNow(Failure(status="refused", message=message, raw=raw)) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raw = self._text(reply)
            message = f"{endpoint.url} sent something that is no answer: {raw[:200]}"
            raise NotNow(Failure(status="invalid", message=message, raw=raw)) from None
        if self.provider == "ollama_chat":
            _is_whole(heard, said, orjson.loads(body)["options"]["num_ctx"])
        return heard

    def _text(self, reply: Reply) -> str:
        return self.scrubbed(reply.body.decode("utf-8", "replace"))

    def _refusal(self, endpoint: Endpoint, reply: Reply, text: str) -> Exception:
        message = f"{endpoint.url} answered {reply.status}: {text[:300]}"
        if reply.status in BUSY:
            return NotNow(
                Failure(status="unreachable", message=message, raw=text), reply.retry_after
            )
        if any(mark in text for mark in TOO_LONG):
            return NoAnswer(Failure(status="truncated", message=message, raw=text))
        if 300 <= reply.status < 400:
            message = f"{endpoint.url} answered {reply.status}: redirects are not followed"
        elif reply.status == 404 and self.provider != "ollama_chat":
            message += " (an endpoint of this kind often ends in `/v1`)"
        return NoAnswer(Failure(status="refused", message=message, raw=text))

    # --- what servers say of themselves ------------------------------------------------------

    async def _look(self) -> None:
        await asyncio.gather(*(self._look_at(endpoint) for endpoint in self.endpoints))

    async def _look_at(self, endpoint: Endpoint) -> None:
        if self.provider == "ollama_chat":
            shown, _ = await self._told("POST", f"{endpoint.url}/api/show", {"model": self.name})
            endpoint.window = _window(shown)
        elif endpoint.dialect is PLAIN:
            listed, server = await self._told("GET", f"{endpoint.url}/models")
            endpoint.is_a(dialect_of(listed, server))

    async def _told(
        self, method: Literal["GET", "POST"], url: str, asked: Any = None
    ) -> tuple[Any, str]:
        """What a server says of itself, if anything, and what it is called."""
        import aiohttp

        if self._session is None:
            self._session = self._connected()
        body = None if asked is None else orjson.dumps(asked)
        soon = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
        try:
            async with self._session.request(
                method, url, data=body, allow_redirects=False, timeout=soon
            ) as response:
                server = response.headers.get("Server", "")
                return orjson.loads(await response.read()), server
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            return {}, ""


@lru_cache(maxsize=256)
def _is_called(name: str, by: str) -> bool:
    """Whether a server may call a model so. Some add a tag, a date or a path.

    >>> _is_called("qwen3", "qwen3:latest"), _is_called("gpt-4o", "gpt-4o-2024-08-06")
    (True, True)
    >>> _is_called("qwen3", "qwen3-coder")
    False
    """
    asked, told = (_PLAIN_NAME.sub("", n.lower().rpartition("/")[2]) for n in (name, by))
    return not told or asked == told


def _window(shown: Any) -> int | None:
    about = shown.get("model_info") if isinstance(shown, dict) else None
    for name, value in about.items() if isinstance(about, dict) else ():
        if name.endswith(".context_length") and isinstance(value, int) and value > 0:
            return value
    return None


def _words(said: list[Message]) -> int:
    """Fewer tokens than this a text cannot have: no token goes over the end of a word."""
    return sum(len(m["content"].split()) for m in said)


def _is_whole(heard: Heard, said: list[Message], context: int) -> None:
    """Ollama before `truncate: false` cuts what is too long for its window, and says nothing.

    It keeps what fills the window, or about half of it. A count far below that is one of the tokens
    that were not in its cache, and tells nothing.
    """
    read = heard.prompt_tokens
    if read and (read >= context or 0.4 * context <= read < _words(said)):
        message = (
            f"the server read {read:,} tokens of a question that has at least {_words(said):,},"
            f" in a window of {context:,}; raise `context:` of the model, or show fewer exemplars"
        )
        raise NoAnswer(Failure(status="truncated", message=message, raw=heard.text))


async def _ended(session: Any) -> None:
    await session.close()
    await asyncio.sleep(0)  # a turn of the loop, in which the transports end
