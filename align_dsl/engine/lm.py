"""An engine for `dspy.LM(engine=...)`: canonical request -> one HTTP request -> canonical response.

litellm decides what the request looks like for a provider; for servers that people run themselves
one shared event loop sends it, at a tenth of the cost of sending it through litellm. All other
providers go through `litellm.completion` whole. Retries are counted, bounded and classified; what
cannot be had is left in the job's trail as a Failure.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import orjson
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from align_dsl.engine.adapter import TRAIL, Trail
from align_dsl.engine.prompt import CHARACTERS_PER_TOKEN
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.types import Failure

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


def litellm_module() -> Any:
    """litellm, kept from the network and from stray `.env` files while it is imported."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    os.environ.setdefault("LITELLM_OFFLINE_MODE", "true")
    import litellm

    litellm.suppress_debug_info = True
    return litellm


class Loop:
    """One event loop in one thread for all requests of the process."""

    _lock = threading.Lock()
    _shared: Loop | None = None

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="wire", daemon=True).start()

    @classmethod
    def shared(cls) -> Loop:
        with cls._lock:
            if cls._shared is None:
                cls._shared = Loop()
            return cls._shared

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent back, before anybody has looked at it."""

    status: int
    body: bytes
    retry_after: float | None = None


class NotNow(Exception):
    """No reply, or one that says to come back later. Carries the failure should it stay so."""

    def __init__(self, failure: Failure, wait: float | None = None) -> None:
        super().__init__(failure.message)
        self.failure, self.wait = failure, wait


class Engine:
    """What DSPy calls. One per model; safe to call from many threads."""

    supports_response_schema = True
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("response_format", "temperature", "max_tokens", "seed")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.provider, _, self.name = model.address.partition("/")
        self.endpoint = (model.endpoint or DEFAULT_ENDPOINTS.get(self.provider, "")).rstrip("/")
        self.own_socket = self.provider in SELF_HOSTED and bool(self.endpoint)
        self._session: Any = None

    def complete(self, request: Any) -> Any:
        trail = TRAIL.get() or Trail()
        waits = 0
        while True:
            trail.calls += 1
            try:
                return self._send(request, trail)
            except NotNow as not_now:
                if waits >= self.model.retries:
                    trail.failure = not_now.failure
                    raise
                time.sleep(not_now.wait if not_now.wait is not None else min(8.0, 0.25 * 2**waits))
                waits += 1
                trail.retries += 1
            except Refused as refused:
                trail.failure = refused.failure
                raise

    def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            Loop.shared().do(session.close())

    def _send(self, request: Any, trail: Trail) -> Any:
        if not self.own_socket:
            return self._by_litellm(request, trail)
        url, body = self.wire(request)
        reply = Loop.shared().do(self._post(url, body))
        trail.constrained = "format" if self.provider == "ollama_chat" else "json_schema"
        return self._read(reply, trail)

    def wire(self, request: Any) -> tuple[str, bytes]:
        """URL and body, as litellm itself would send them."""
        url, transform, optional = _mapped(
            self.provider, self.name, self.endpoint, self._parameters(request)
        )
        body = transform(
            model=self.name,
            messages=_messages(request),
            optional_params=dict(optional),
            litellm_params={},
            headers={},
        )
        body.update(body.pop("extra_body", None) or {})
        if self.provider == "ollama_chat":
            body.setdefault("options", {})["num_ctx"] = self.model.context or _context(
                request, self.model
            )
            body["think"] = False
            body["keep_alive"] = self.model.keep_alive or "5m"
        return url, orjson.dumps(body)

    def _parameters(self, request: Any) -> _Parameters:
        return _Parameters(
            self.model.temperature,
            self.model.max_tokens,
            request.config.seed,
            orjson.dumps(_response_format(request)),
        )

    async def _post(self, url: str, body: bytes) -> Reply:
        import aiohttp

        if self._session is None:
            headers = {"Content-Type": "application/json"}
            if self.model.key:
                headers["Authorization"] = f"Bearer {os.environ.get(self.model.key, '')}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.model.concurrency * 2),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self.model.timeout, sock_connect=10),
            )
        try:
            # redirects could carry a key elsewhere
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                raw = await response.read()
                return Reply(response.status, raw, _seconds(response.headers.get("Retry-After")))
        except TimeoutError:
            said = f"no answer within {self.model.timeout:g} s from {self.endpoint}"
            raise NotNow(Failure(status="timeout", message=said)) from None
        except aiohttp.ClientError as error:
            said = f"{self.endpoint} cannot be reached: {error}"
            raise NotNow(Failure(status="unreachable", message=said)) from None

    def _read(self, reply: Reply, trail: Trail) -> Any:
        text = reply.body.decode("utf-8", "replace")
        if reply.status != 200:
            said = f"{self.endpoint} answered {reply.status}: {text[:300]}"
            if reply.status in BUSY:
                raise NotNow(
                    Failure(status="unreachable", message=said, raw=text), reply.retry_after
                )
            raise Refused(Failure(status="refused", message=said, raw=text))
        try:
            data = orjson.loads(reply.body)
            if "choices" in data:
                choice, usage = data["choices"][0], data.get("usage") or {}
                content = choice["message"].get("content") or ""
                finish = choice.get("finish_reason")
                counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
            else:
                content, finish = data["message"]["content"], data.get("done_reason")
                counts = data.get("prompt_eval_count"), data.get("eval_count")
                if not data.get("done", False):
                    finish = "length"
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            said = f"{self.endpoint} sent something that is no answer: {text[:200]}"
            raise NotNow(Failure(status="invalid", message=said, raw=text)) from None
        return self._response(str(content), finish, counts, trail)

    def _response(
        self, text: str, finish: Any, counts: tuple[int | None, int | None], trail: Trail
    ) -> Any:
        trail.prompt_tokens += counts[0] or 0
        trail.completion_tokens += counts[1] or 0
        trail.raw = text
        return Response(
            id=None,
            model=self.model.address,
            message=Message(role="assistant", parts=(TextPart(text=text),)),
            finish_reason="length" if finish == "length" else "stop",
            usage=Usage(input_tokens=counts[0], output_tokens=counts[1]),
        )

    def _by_litellm(self, request: Any, trail: Trail) -> Any:
        litellm = litellm_module()
        trail.constrained = "json_schema"
        try:
            said = litellm.completion(
                model=self.model.address,
                messages=_messages(request),
                response_format=_response_format(request),
                temperature=self.model.temperature,
                max_tokens=self.model.max_tokens,
                seed=request.config.seed,
                timeout=self.model.timeout,
                api_base=self.endpoint or None,
                api_key=os.environ.get(self.model.key) if self.model.key else None,
                max_retries=0,
                num_retries=0,
                drop_params=False,
            )
        except litellm.exceptions.Timeout as error:
            raise NotNow(Failure(status="timeout", message=str(error)[:300])) from None
        except litellm.exceptions.APIConnectionError as error:
            raise NotNow(Failure(status="unreachable", message=str(error)[:300])) from None
        except Exception as error:
            code = getattr(error, "status_code", 0) or 0
            message = str(error)[:300]
            if code in BUSY:
                raise NotNow(Failure(status="unreachable", message=message)) from None
            raise Refused(Failure(status="refused", message=message)) from None
        choice, usage = said.choices[0], said.usage
        return self._response(
            choice.message.content or "",
            choice.finish_reason,
            (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None),
            trail,
        )


class Refused(Exception):
    """The server will not answer this, however often it is asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class _Parameters:
    temperature: float
    max_tokens: int
    seed: int | None
    response_format: bytes


@functools.lru_cache(maxsize=64)
def _route(provider: str, name: str, endpoint: str) -> tuple[str, Any]:
    litellm_module()
    from litellm.types.utils import LlmProviders
    from litellm.utils import ProviderConfigManager

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
    return url, config.transform_request


@functools.lru_cache(maxsize=1024)
def _optional(provider: str, name: str, parameters: _Parameters) -> dict[str, Any]:
    from litellm.utils import get_optional_params

    optional: dict[str, Any] = get_optional_params(
        model=name,
        custom_llm_provider=provider,
        temperature=parameters.temperature,
        max_tokens=parameters.max_tokens,
        response_format=orjson.loads(parameters.response_format),
    )
    return optional


def _mapped(
    provider: str, name: str, endpoint: str, parameters: _Parameters
) -> tuple[str, Any, dict[str, Any]]:
    """litellm's own mapping; the seed, which differs in every job, is put in where it put it."""
    url, transform = _route(provider, name, endpoint)
    without = _Parameters(
        parameters.temperature, parameters.max_tokens, None, parameters.response_format
    )
    optional = dict(_optional(provider, name, without))
    if parameters.seed is not None:
        optional["seed"] = parameters.seed
    return url, transform, optional


def _messages(request: Any) -> list[dict[str, str]]:
    said = [{"role": "system", "content": request.system}] if request.system else []
    return said + [{"role": m.role, "content": m.text} for m in request.messages]


def _response_format(request: Any) -> dict[str, Any]:
    wanted = request.config.response_format
    return {
        "type": "json_schema",
        "json_schema": {k: wanted[k] for k in ("name", "schema", "strict")},
    }


def _context(request: Any, model: Model) -> int:
    """A context window that holds prompt and answer, in steps so that Ollama need not reload."""
    characters = len(request.system or "") + sum(len(m.text) for m in request.messages)
    need = characters / CHARACTERS_PER_TOKEN * 1.3 + model.max_tokens + 64
    return int(2048 * -(-need // 2048))


def _seconds(written: str | None) -> float | None:
    try:
        return min(60.0, float(written)) if written else None
    except ValueError:
        return None


__all__ = ["Engine", "Loop", "Request", "litellm_module"]
