"""An engine for `dspy.LM(engine=...)`: a question -> one HTTP request -> what the model said.

litellm decides what the request looks like for a provider; for servers that people run themselves
one shared event loop sends it, at a twentieth of the cost of sending it through litellm. All other
providers go through `litellm.completion` whole. What goes wrong is told apart: `NotNow` may be
asked again, `NoAnswer` may not. Keys appear in neither.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
from dspy.lm15 import Message as LmMessage
from dspy.lm15 import Request, Response, TextPart, Usage

from align_dsl.engine.adapter import TRAIL, NoAnswer, NotNow, Said, Trail
from align_dsl.engine.expected import INSTEAD, Token, Weigher
from align_dsl.engine.expected import tokens as tokens_of
from align_dsl.engine.grammar import grammar, one_of
from align_dsl.engine.limiter import How, Limiter
from align_dsl.engine.prompt import Message, Shape, sayable, schema, tokens, written
from align_dsl.engine.quirks import OLLAMA, PLAIN, TOO_LONG, VLLM, Dialect, dialect
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
LONGEST_WAIT = 60.0  # seconds, whatever a server's Retry-After says
CONNECT_SECONDS = 10
IDLE_SECONDS = 4  # uvicorn, and so vLLM, hangs up after 5: do not send on a line about to go dead


def litellm_module() -> Any:
    """litellm, kept from the network and from stray `.env` files while it is imported."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    os.environ.setdefault("LITELLM_OFFLINE_MODE", "true")
    import litellm

    litellm.suppress_debug_info = True
    return litellm


@functools.cache
def _whole_litellm() -> Any:
    """litellm as it answers by itself; its models are built here, once, as building them warns."""
    litellm = litellm_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm.ModelResponse()
    return litellm


class Loop:
    """One event loop in one thread for all requests of the process."""

    _lock = threading.Lock()
    _shared: Loop | None = None

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._waiting: deque[tuple[Coroutine[Any, Any, Any], _Outcome]] = deque()
        self._woken = False
        threading.Thread(target=self.loop.run_forever, name="wire", daemon=True).start()

    @classmethod
    def shared(cls) -> Loop:
        with cls._lock:
            if cls._shared is None:
                cls._shared = Loop()
            return cls._shared

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the loop and wait for it. Threads that come together wake it once."""
        outcome = _Outcome()
        self._waiting.append((work, outcome))
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._begin)
        try:
            outcome.done.acquire()
        except BaseException:  # Ctrl-C in a thread that waits
            self.loop.call_soon_threadsafe(outcome.cancel)
            raise
        return outcome.take()

    def _begin(self) -> None:
        self._woken = False  # first: who comes while we look either is seen or wakes us again
        while self._waiting:
            work, outcome = self._waiting.popleft()
            outcome.task = self.loop.create_task(work)
            outcome.task.add_done_callback(outcome.finish)


class _Outcome:
    """What a thread waits for. A bare lock: a Future of the library costs ten times as much."""

    __slots__ = ("done", "task")

    def __init__(self) -> None:
        self.done = threading.Lock()
        self.done.acquire()
        self.task: asyncio.Task[Any] | None = None

    def finish(self, task: asyncio.Task[Any]) -> None:
        self.done.release()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def take(self) -> Any:
        assert self.task is not None
        return self.task.result()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent back, before anybody has looked at it."""

    status: int
    body: bytes
    retry_after: float | None = None
    server: str = ""  # what it calls itself


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer in canonical form, whatever the dialect it came in."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: Any = None  # as they came


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
                held = _format({"name": "answer", "schema": enum, "strict": True}), told
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
        format_ = _format_of(shape) if rules is None else b""
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
        format_ = _format(config.response_format)
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
        parameters = _Parameters(
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

    def _by_ourselves(
        self, said: list[Message], parameters: _Parameters, seed: int | None
    ) -> Heard:
        url, body = self.wire(said, parameters, seed)
        reply = Loop.shared().do(self._in_turn(url, body))
        if self.dialect is PLAIN and reply.server:
            self.dialect = dialect({}, reply.server)
        text = self.scrubbed(reply.body.decode("utf-8", "replace"))
        if reply.status != 200:
            raise self._refusal(reply, text)
        try:
            return _read(orjson.loads(reply.body), self.scrubbed)
        except _Complaint as complaint:
            message = f"{self.endpoint} answered with an error: {str(complaint)[:300]}"
            raise NotNow(Failure(status="refused", message=message, raw=text)) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            message = f"{self.endpoint} sent something that is no answer: {text[:200]}"
            raise NotNow(Failure(status="invalid", message=message, raw=text)) from None

    def wire(
        self, said: list[Message], parameters: _Parameters, seed: int | None
    ) -> tuple[str, bytes]:
        """URL and body, as litellm itself would send them; and what only this server knows."""
        url, body = _template(self.provider, self.name, self.endpoint, parameters)(said)
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
                later = _seconds(response.headers.get("Retry-After"))
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

    def _by_litellm(self, said: list[Message], parameters: _Parameters, seed: int | None) -> Heard:
        litellm, format_ = _whole_litellm(), parameters.response_format
        orjson.dumps(said)  # raises here, where it can be told from a fault of the provider
        try:
            answer = litellm.completion(
                model=self.model.address,
                messages=said,
                response_format=orjson.loads(format_) if format_ else None,
                temperature=parameters.temperature,
                max_tokens=parameters.max_tokens,
                seed=seed if _takes_seed(self.model.address) else None,
                timeout=self.model.timeout,
                api_base=self.endpoint or None,
                api_key=self._key() or None,
                max_retries=0,
                num_retries=0,
                drop_params=False,
            )
            return _read(_plain(answer), self.scrubbed)
        except litellm.exceptions.Timeout as error:
            raise NotNow(self._failure("timeout", error)) from None
        except litellm.exceptions.APIConnectionError as error:
            raise NotNow(self._failure("unreachable", error)) from None
        except (KeyError, TypeError, IndexError, AttributeError, _Complaint) as error:
            raise NotNow(self._failure("invalid", error)) from None
        except Exception as error:
            if getattr(error, "status_code", 0) in BUSY:
                wait = _seconds(_header(error, "retry-after"))
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


class _Complaint(Exception):
    """A server that says 200 and means an error."""


def _read(data: Any, scrubbed: Callable[[str], str]) -> Heard:
    """What a server said, in OpenAI's dialect or in Ollama's. Raises what a wrong form raises."""
    if isinstance(data, dict) and (wrong := data.get("error")):
        said = wrong.get("message", wrong) if isinstance(wrong, dict) else wrong
        raise _Complaint(scrubbed(str(said)))
    if "choices" in data:
        choice, usage = data["choices"][0], data.get("usage") or {}
        message, finish = choice["message"], str(choice.get("finish_reason") or "stop")
        logprobs = choice.get("logprobs")
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    else:
        message, finish = data["message"], str(data.get("done_reason") or "stop")
        logprobs = data.get("logprobs")
        counts = data.get("prompt_eval_count"), data.get("eval_count")
        if not data.get("done", False):
            finish = "length"
    content = message.get("content")
    if content is None and (refusal := message.get("refusal")):
        raw = scrubbed(str(refusal))
        said = f"the model refused: {raw[:300]}"
        raise NoAnswer(Failure(status="refused", message=said, raw=raw))
    if content is not None and not isinstance(content, str):
        raise TypeError("the content is not text")
    text = scrubbed(content or "")
    if finish == "content_filter":
        said = "the provider's content filter ended the answer"
        raise NoAnswer(Failure(status="refused", message=said, raw=text))
    return Heard(text, finish, _count(counts[0]), _count(counts[1]), logprobs)


def _plain(answer: Any) -> dict[str, Any]:
    """What litellm's answer says that `_read` asks for; to dump all of it may warn."""
    choice, usage = answer.choices[0], getattr(answer, "usage", None)
    message = {
        "content": choice.message.content,
        "refusal": getattr(choice.message, "refusal", None),
    }
    names = ("prompt_tokens", "completion_tokens")
    return {
        "choices": [{"message": message, "finish_reason": choice.finish_reason}],
        "usage": {name: getattr(usage, name, None) for name in names},
    }


def _count(said: Any) -> int:
    return said if isinstance(said, int) and said > 0 else 0


@dataclass(frozen=True, slots=True)
class _Parameters:
    temperature: float
    max_tokens: int
    response_format: bytes  # as JSON; empty for none
    extra: Extra = ()


Extra = tuple[tuple[str, Any], ...]
"""Fields of a request that only one kind of server knows; litellm is not asked about them."""

Template = Callable[[list[Message]], tuple[str, dict[str, Any]]]


@functools.lru_cache(maxsize=1024)
def _template(provider: str, name: str, endpoint: str, parameters: _Parameters) -> Template:
    """What litellm makes of the parameters, made once; messages are put in as they are.

    That litellm does not change messages of plain text is seen, not assumed: where it does, it is
    asked for each request anew. The seed, which differs in every job, is left to the caller.
    """
    litellm_module()
    from litellm.types.utils import LlmProviders
    from litellm.utils import ProviderConfigManager, get_optional_params

    config = ProviderConfigManager.get_provider_chat_config(
        model=name, provider=LlmProviders(provider)
    )
    if config is None:
        raise BackendError(f"litellm has no chat configuration for `{provider}`")
    url = config.get_complete_url(
        api_base=endpoint,
        api_key="",
        model=name,
        optional_params={},
        litellm_params={},
        stream=False,
    )
    format_ = parameters.response_format
    optional = get_optional_params(
        model=name,
        custom_llm_provider=provider,
        temperature=parameters.temperature,
        max_tokens=parameters.max_tokens,
        stream=None,
        **({"response_format": orjson.loads(format_)} if format_ else {}),
    )

    def made(said: list[Message]) -> dict[str, Any]:
        body: dict[str, Any] = config.transform_request(
            model=name,
            messages=[dict(m) for m in said],
            optional_params=dict(optional),
            litellm_params={},
            headers={},
        )
        body.update(body.pop("extra_body", None) or {})
        return body

    roles = ("system", "user", "assistant", "user")
    sample = [{"role": role, "content": f"said by {role}"} for role in roles]
    body = made(sample)
    if body["messages"] != sample:
        return lambda said: (url, made(said))
    return lambda said: (url, {**body, "messages": said})


@functools.lru_cache(maxsize=1024)
def _format_of(shape: Shape) -> bytes:
    return _format({"name": "answer", "schema": schema(shape), "strict": True})


def _format(wanted: Mapping[str, Any] | None) -> bytes:
    if not wanted:
        return b""
    inner = {k: wanted[k] for k in ("name", "schema", "strict") if k in wanted}
    return orjson.dumps({"type": "json_schema", "json_schema": inner})


def _context(said: list[Message], max_tokens: int) -> int:
    """A context window that holds prompt and answer, in steps so that Ollama need not reload."""
    need = sum(tokens(m["content"]) for m in said) * 1.3 + max_tokens + 64
    return int(2048 * -(-need // 2048))


@functools.lru_cache(maxsize=64)
def _takes_seed(address: str) -> bool:
    """Whether a provider takes a seed. One that takes none is asked without."""
    try:
        return "seed" in (litellm_module().get_supported_openai_params(address) or ())
    except Exception:  # of many kinds, for providers and models that litellm does not know
        return True


def _seconds(written: str | None) -> float | None:
    """Retry-After, which is seconds or a date."""
    if not written:
        return None
    try:
        seconds = float(written)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(written).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(LONGEST_WAIT, max(0.0, seconds)) if seconds == seconds else None


def _header(error: Exception, name: str) -> str | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return headers.get(name)


async def _ended(session: Any) -> None:
    await session.close()
    await asyncio.sleep(0)  # a turn of the loop, in which the transports end


__all__ = ["Engine", "Loop", "Request", "litellm_module"]
