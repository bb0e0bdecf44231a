"""An engine for `dspy.LM(engine=...)`: a question -> one HTTP request -> what the model said.

litellm decides what the request looks like for a provider; for servers that people run themselves
one shared event loop sends it, at a twentieth of the cost of sending it through litellm. All other
providers go through `litellm.completion` whole. What goes wrong is told apart: `NotNow` may be
asked again, `NoAnswer` may not. Keys appear in neither.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import orjson
from dspy.lm15 import Message as LmMessage
from dspy.lm15 import Response, TextPart, Usage

from align_dsl.engine.adapter import TRAIL, NoAnswer, NotNow, Said, Trail
from align_dsl.engine.expected import INSTEAD, Token, Weigher
from align_dsl.engine.expected import tokens as tokens_of
from align_dsl.engine.grammar import grammar, one_of
from align_dsl.engine.limiter import How, Limiter
from align_dsl.engine.loop import Loop
from align_dsl.engine.mapping import (
    Extra,
    Parameters,
    format_as,
    format_of,
    takes_seed,
    template,
    whole_litellm,
)
from align_dsl.engine.prompt import Message, Shape, sayable, tokens, written
from align_dsl.engine.quirks import OLLAMA, PLAIN, TOO_LONG, VLLM, Dialect, dialect
from align_dsl.engine.reply import Complaint, Heard, Reply, header_of, plain, read, seconds_of
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.types import Failure, ScaleWeights

SELF_HOSTED = frozenset(
    {"hosted_vllm", "ollama_chat", "openai", "custom_openai", "llamafile", "lm_studio"}
)
DEFAULT_ENDPOINTS = {
    "ollama_chat": "http://localhost:11434",
    "hosted_vllm": "http://localhost:8000/v1",
    "llamafile": "http://localhost:8080/v1",
    "lm_studio": "http://localhost:1234/v1",
}
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
TOO_MUCH = frozenset({408, 429, 503, 504})  # of these it is said: fewer at once
CONNECT_SECONDS = 10
IDLE_SECONDS = 4  # uvicorn, and so vLLM, hangs up after 5: do not send on a line about to go dead


class Engine:
    """What DSPy calls. One per model; safe to call from many threads, never after `close`."""

    supports_response_schema = True
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("response_format", "temperature", "max_tokens", "seed")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.provider, _, self.name = model.address.partition("/")
        self.endpoint = (model.endpoint or DEFAULT_ENDPOINTS.get(self.provider, "")).rstrip("/")
        if urlsplit(self.endpoint).username is not None:
            raise BackendError(
                f"the endpoint of the model `{model.name}` holds a user name\n"
                "  = put the key into an environment variable, and the variable's name under `key:`"
            )
        self.own_socket = self.provider in SELF_HOSTED and bool(self.endpoint)
        self._slots = threading.BoundedSemaphore(model.concurrency)
        self._limiter = Limiter.of([self.endpoint], model.concurrency)
        self._session: Any = None
        self._closed = False
        self.dialect = {"hosted_vllm": VLLM, "ollama_chat": OLLAMA}.get(self.provider, PLAIN)
        self._weigher: Weigher | None = None

    def look(self) -> None:
        """Learn what kind of server answers. One that does not say is taken at its protocol's word.

        Where nobody looks, it is learnt from the first reply.
        """
        if self.own_socket and self.dialect is PLAIN:
            self.dialect = Loop.shared().do(self._listed(f"{self.endpoint}/models"))

    def weigh(self, said: list[Message], shape: Shape, trail: Trail) -> ScaleWeights:
        """How probable each number of the scale is. Raises NotNow or NoAnswer."""
        if not self.own_socket:
            message = f"`rating: expected` is for servers that one runs oneself; {INSTEAD}"
            raise NoAnswer(Failure(status="refused", message=message))
        if self._weigher is None:
            self.look()
            self._weigher = Weigher(self.dialect.masked)

        def tell(allowed: tuple[str, ...], most: int) -> tuple[Token, ...]:
            told: Extra = (("logprobs", True), ("top_logprobs", self.dialect.top))
            if self.dialect.grammar:
                held = b"", (("grammar", one_of(allowed)), *told)
            else:
                enum = {"enum": [orjson.loads(n) for n in allowed]}
                held = format_as({"name": "answer", "schema": enum, "strict": True}), told
            return tokens_of(self._heard(said, held[0], trail, None, 0, most, held[1]).logprobs)

        trail.constrained = self._constraint(self.dialect.grammar)
        found = self._weigher.weigh(written(shape.scale), tell)
        trail.notes.setdefault("expected", []).append(found.note())
        return found.weights

    def ask(
        self, said: list[Message], shape: Shape, trail: Trail, temperature: float | None = None
    ) -> Said:
        """One request for an answer of this shape. Raises NotNow or NoAnswer."""
        rules = grammar(shape) if self.dialect.grammar else None
        format_ = format_of(shape) if rules is None else b""
        extra: Extra = () if rules is None else (("grammar", rules),)
        if (self.model.temperature if temperature is None else temperature) > 0:
            trail.notes["seed"] = trail.seed
        heard = self._heard(said, format_, trail, trail.seed, temperature, None, extra)
        trail.constrained = self._constraint(rules is not None)
        return Said(heard.text, heard.finish == "length")

    def _constraint(self, by_grammar: bool) -> str:
        if by_grammar:
            return "grammar"
        return "format" if self.provider == "ollama_chat" else "json_schema"

    def complete(self, request: Any) -> Any:
        """The same for whoever comes through `dspy.LM`, such as optimizers that write prompts."""
        trail = TRAIL.get() or Trail()
        config = request.config
        said = [{"role": "system", "content": request.system}] if request.system else []
        said += [{"role": m.role, "content": m.text} for m in request.messages]
        format_ = format_as(config.response_format)
        for times in range(self.model.retries + 1):
            try:
                heard = self._heard(
                    said, format_, trail, config.seed, config.temperature, config.max_tokens
                )
                return self._response(heard)
            except NotNow as not_now:
                if times == self.model.retries:
                    raise NoAnswer(not_now.failure) from None
                trail.retries += 1
                time.sleep(not_now.pause(times))
        raise AssertionError("the last try answers or raises")

    def close(self) -> None:
        """End what is in flight, and the connections."""
        self._closed = True
        if self._session is not None:
            session, self._session = self._session, None
            Loop.shared().do(_ended(session))

    def _heard(
        self,
        said: list[Message],
        format_: bytes,
        trail: Trail,
        seed: int | None,
        temperature: float | None,
        max_tokens: int | None,
        extra: Extra = (),
    ) -> Heard:
        if self._closed:
            raise NoAnswer(Failure(status="unreachable", message="the model has been closed"))
        parameters = Parameters(
            self.model.temperature if temperature is None else temperature,
            max_tokens or self.model.max_tokens,
            format_,
            extra,
        )
        try:
            with self._slots:
                trail.calls += 1
                if self.own_socket:
                    heard = self._by_ourselves(said, parameters, seed)
                else:
                    heard = self._by_litellm(said, parameters, seed)
        except orjson.JSONEncodeError:  # half a character has no bytes
            message = "the question holds text that is not valid Unicode, which nobody can be sent"
            raise NoAnswer(Failure(status="refused", message=message)) from None
        trail.prompt_tokens += heard.prompt_tokens
        trail.completion_tokens += heard.completion_tokens
        return heard

    def _response(self, heard: Heard) -> Any:
        return Response(
            id=None,
            model=self.model.address,
            message=LmMessage(role="assistant", parts=(TextPart(text=heard.text),)),
            finish_reason="length" if heard.finish == "length" else "stop",
            usage=Usage(input_tokens=heard.prompt_tokens, output_tokens=heard.completion_tokens),
        )

    # --- servers that people run themselves --------------------------------------------------

    def _by_ourselves(self, said: list[Message], parameters: Parameters, seed: int | None) -> Heard:
        url, body = self.wire(said, parameters, seed)
        reply = Loop.shared().do(self._in_turn(url, body))
        if self.dialect is PLAIN and reply.server:
            self.dialect = dialect({}, reply.server)
        text = self.scrubbed(reply.body.decode("utf-8", "replace"))
        if reply.status != 200:
            raise self._refusal(reply, text)
        try:
            return read(orjson.loads(reply.body), self.scrubbed)
        except Complaint as complaint:
            message = f"{self.endpoint} answered with an error: {str(complaint)[:300]}"
            raise NotNow(Failure(status="refused", message=message, raw=text)) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            message = f"{self.endpoint} sent something that is no answer: {text[:200]}"
            raise NotNow(Failure(status="invalid", message=message, raw=text)) from None

    def wire(
        self, said: list[Message], parameters: Parameters, seed: int | None
    ) -> tuple[str, bytes]:
        """URL and body, as litellm itself would send them; and what only this server knows."""
        url, body = template(self.provider, self.name, self.endpoint, parameters)(said)
        if parameters.extra:
            body = {**body, **dict(parameters.extra)}
        if self.provider == "ollama_chat":
            context = self.model.context or _context(said, parameters.max_tokens)
            body["options"] = {**body["options"], "num_ctx": context}
            if seed is not None:
                body["options"]["seed"] = seed
            body["think"] = False
            body["keep_alive"] = self.model.keep_alive or "5m"
        elif seed is not None:
            body["seed"] = seed
        return url, orjson.dumps(body)

    async def _in_turn(self, url: str, body: bytes) -> Reply:
        """Send when the server has room, and learn from how it went how much room it has."""
        place = await self._limiter.take()
        how: How = "unsaid"
        rest = None
        try:
            reply = await self._post(url, body)
            if reply.status in TOO_MUCH:
                how, rest = "busy", reply.retry_after
            elif reply.status < 500:
                how = "ok"
            return reply
        except NotNow as not_now:
            how = "busy" if not_now.failure.status == "timeout" else "down"
            raise
        finally:
            await self._limiter.give_back(place, how, rest)

    async def _post(self, url: str, body: bytes) -> Reply:
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
            wrong = f"{self.endpoint} cannot be reached: {error}"
        except aiohttp.ConnectionTimeoutError:
            wrong = f"{self.endpoint} cannot be reached within {CONNECT_SECONDS} s"
        except TimeoutError:
            message = f"no answer within {self.model.timeout:g} s from {self.endpoint}"
            raise NotNow(Failure(status="timeout", message=message)) from None
        except (aiohttp.ClientError, OSError) as error:
            wrong = f"{self.endpoint} hung up before its answer was complete: {error}"
        raise NotNow(Failure(status="unreachable", message=self.scrubbed(wrong)))

    async def _listed(self, url: str) -> Dialect:
        """What the list of models says of its server, if there is one."""
        import aiohttp

        if self._session is None:
            self._session = self._connected()
        try:
            soon = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
            async with self._session.get(url, allow_redirects=False, timeout=soon) as response:
                listed = orjson.loads(await response.read())
                return dialect(listed, response.headers.get("Server", ""))
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            return PLAIN

    def _connected(self) -> Any:
        import aiohttp

        headers = {"Content-Type": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.model.timeout, sock_connect=CONNECT_SECONDS),
        )

    def _refusal(self, reply: Reply, text: str) -> Exception:
        message = f"{self.endpoint} answered {reply.status}: {text[:300]}"
        if reply.status in BUSY:
            return NotNow(
                Failure(status="unreachable", message=message, raw=text), reply.retry_after
            )
        if any(mark in text for mark in TOO_LONG):
            return NoAnswer(Failure(status="truncated", message=message, raw=text))
        if 300 <= reply.status < 400:
            message = f"{self.endpoint} answered {reply.status}: redirects are not followed"
        elif reply.status == 404 and self.provider != "ollama_chat":
            message += " (an endpoint of this kind often ends in `/v1`)"
        return NoAnswer(Failure(status="refused", message=message, raw=text))

    # --- everybody else ----------------------------------------------------------------------

    def _by_litellm(self, said: list[Message], parameters: Parameters, seed: int | None) -> Heard:
        litellm, format_ = whole_litellm(), parameters.response_format
        orjson.dumps(said)  # raises here, where it can be told from a fault of the provider
        try:
            answer = litellm.completion(
                model=self.model.address,
                messages=said,
                response_format=orjson.loads(format_) if format_ else None,
                temperature=parameters.temperature,
                max_tokens=parameters.max_tokens,
                seed=seed if takes_seed(self.model.address) else None,
                timeout=self.model.timeout,
                api_base=self.endpoint or None,
                api_key=self._key() or None,
                max_retries=0,
                num_retries=0,
                drop_params=False,
            )
            return read(plain(answer), self.scrubbed)
        except litellm.exceptions.Timeout as error:
            raise NotNow(self._failure("timeout", error)) from None
        except litellm.exceptions.APIConnectionError as error:
            raise NotNow(self._failure("unreachable", error)) from None
        except (KeyError, TypeError, IndexError, AttributeError, Complaint) as error:
            raise NotNow(self._failure("invalid", error)) from None
        except Exception as error:
            if getattr(error, "status_code", 0) in BUSY:
                wait = seconds_of(header_of(error, "retry-after"))
                raise NotNow(self._failure("unreachable", error), wait) from None
            raise NoAnswer(self._failure("refused", error)) from None

    def _failure(self, status: Any, error: Exception) -> Failure:
        return Failure(status=status, message=self.scrubbed(str(error))[:300])

    # --- keys --------------------------------------------------------------------------------

    def _key(self) -> str:
        return os.environ.get(self.model.key, "") if self.model.key else ""

    def scrubbed(self, text: str) -> str:
        """Text of a server as it may be kept: without our key."""
        key = self._key()
        if key and key in text:
            text = text.replace(key, "[key]")
        return sayable(text)


def _context(said: list[Message], max_tokens: int) -> int:
    """A context window that holds prompt and answer, in steps so that Ollama need not reload."""
    need = sum(tokens(m["content"]) for m in said) * 1.3 + max_tokens + 64
    return int(2048 * -(-need // 2048))


async def _ended(session: Any) -> None:
    await session.close()
    await asyncio.sleep(0)  # a turn of the loop, in which the transports end
