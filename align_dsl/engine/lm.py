"""An engine for `dspy.LM(engine=...)`: a question -> one request -> what the model said.

Servers that people run themselves are sent requests by our own `Wire`; all other providers go
through `litellm.completion` whole. What goes wrong is told apart: `NotNow` may be asked again,
`NoAnswer` may not. Keys appear in neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
from dspy.lm15 import Message as LmMessage
from dspy.lm15 import Response, TextPart, Usage

from align_dsl.engine.adapter import TRAIL, NoAnswer, NotNow, Said, Trail
from align_dsl.engine.expected import INSTEAD, Token, Weigher
from align_dsl.engine.expected import tokens as tokens_of
from align_dsl.engine.grammar import grammar, one_of
from align_dsl.engine.loop import pause
from align_dsl.engine.mapping import (
    Extra,
    Parameters,
    format_as,
    format_of,
    takes_seed,
    whole_litellm,
)
from align_dsl.engine.prompt import Message, Shape, sayable, written
from align_dsl.engine.quirks import PLAIN, Dialect
from align_dsl.engine.reply import Complaint, Heard, header_of, plain, read, seconds_of
from align_dsl.engine.wire import BUSY, Wire
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

Asking = Callable[[Dialect | None], Parameters]


class Engine:
    """What DSPy calls. One per model; safe to call from many threads, never after `close`."""

    supports_response_schema = True
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("response_format", "temperature", "max_tokens", "seed")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.provider, _, self.name = model.address.partition("/")
        self.urls = _urls(model, self.provider)
        self.own_socket = self.provider in SELF_HOSTED and bool(self.urls)
        self._closed = False
        # where litellm answers whole, it is held to so many at once here
        self._slots = threading.BoundedSemaphore(model.concurrency)
        self._weigher: Weigher | None = None
        self.wire: Wire | None = None
        if self.own_socket:
            self.wire = Wire(model, self.provider, self.name, self.urls, self._key, self.scrubbed)

    @property
    def dialect(self) -> Dialect:
        """How the server is talked to, or the first of several."""
        return PLAIN if self.wire is None else self.wire.endpoints[0].dialect

    @property
    def batches(self) -> bool:
        return self.wire is not None and self.wire.batches

    def look(self) -> None:
        """Learn what kind of servers answer."""
        if self.wire is not None:
            self.wire.look()

    def weigh(self, said: list[Message], shape: Shape, trail: Trail) -> ScaleWeights:
        """How probable each number of the scale is. Raises NotNow or NoAnswer."""
        if self.wire is None:
            message = f"`rating: expected` is for servers that one runs oneself; {INSTEAD}"
            raise NoAnswer(Failure(status="refused", message=message))
        if self._weigher is None:
            self.look()
            self._weigher = Weigher(self.dialect.masked)

        def tell(allowed: tuple[str, ...], most: int) -> tuple[Token, ...]:
            def asking(dialect: Dialect | None) -> Parameters:
                assert dialect is not None
                told: Extra = (("logprobs", True), ("top_logprobs", dialect.top))
                if dialect.grammar:
                    return self._parameters(0, most, b"", (*dialect.held(one_of(allowed)), *told))
                enum = {"enum": [orjson.loads(n) for n in allowed]}
                held = format_as({"name": "answer", "schema": enum, "strict": True})
                return self._parameters(0, most, held, told)

            heard, dialect = self._heard(said, asking, trail, None)
            trail.constrained = self._constraint(dialect)
            return tokens_of(heard.logprobs)

        found = self._weigher.weigh(written(shape.scale), tell)
        trail.notes.setdefault("expected", []).append(found.note())
        return found.weights

    def ask(
        self, said: list[Message], shape: Shape, trail: Trail, temperature: float | None = None
    ) -> Said:
        """One request for an answer of this shape. Raises NotNow or NoAnswer."""

        def asking(dialect: Dialect | None) -> Parameters:
            if dialect and dialect.grammar and (rules := grammar(shape, dialect.escapes)):
                return self._parameters(temperature, None, b"", dialect.held(rules))
            return self._parameters(temperature, None, format_of(shape))

        if (self.model.temperature if temperature is None else temperature) > 0:
            trail.notes["seed"] = trail.seed
        heard, dialect = self._heard(said, asking, trail, trail.seed)
        trail.constrained = self._constraint(dialect if grammar(shape) else None)
        return Said(heard.text, heard.finish == "length")

    def _parameters(
        self, temperature: float | None, most: int | None, format_: bytes, extra: Extra = ()
    ) -> Parameters:
        warmth = self.model.temperature if temperature is None else temperature
        return Parameters(warmth, most or self.model.max_tokens, format_, extra)

    def _constraint(self, dialect: Dialect | None) -> str:
        if dialect is not None and dialect.grammar:
            return "grammar"
        return "format" if self.provider == "ollama_chat" else "json_schema"

    def complete(self, request: Any) -> Any:
        """The same for whoever comes through `dspy.LM`, such as optimizers that write prompts."""
        trail = TRAIL.get() or Trail()
        config = request.config
        said = [{"role": "system", "content": request.system}] if request.system else []
        said += [{"role": m.role, "content": m.text} for m in request.messages]
        format_ = format_as(config.response_format)
        asked = self._parameters(config.temperature, config.max_tokens, format_)
        for times in range(self.model.retries + 1):
            try:
                heard, _ = self._heard(said, lambda _: asked, trail, config.seed)
                return self._response(heard)
            except NotNow as not_now:
                if times == self.model.retries:
                    raise NoAnswer(not_now.failure) from None
                trail.retries += 1
                pause(not_now.pause(times))
        raise AssertionError("the last try answers or raises")

    def close(self) -> None:
        """End what is in flight, and the connections."""
        self._closed = True
        if self.wire is not None:
            self.wire.close()

    def _heard(
        self, said: list[Message], asking: Asking, trail: Trail, seed: int | None
    ) -> tuple[Heard, Dialect | None]:
        if self._closed:
            raise NoAnswer(Failure(status="unreachable", message="the model has been closed"))
        dialect: Dialect | None = None
        try:
            if self.wire is not None:
                heard, dialect = self.wire.ask(said, asking, trail, seed)
            else:
                with self._slots:
                    trail.calls += 1
                    heard = self._by_litellm(said, asking(None), seed)
        except orjson.JSONEncodeError:  # half a character has no bytes
            message = "the question holds text that is not valid Unicode, which nobody can be sent"
            raise NoAnswer(Failure(status="refused", message=message)) from None
        trail.prompt_tokens += heard.prompt_tokens
        trail.completion_tokens += heard.completion_tokens
        return heard, dialect

    def _response(self, heard: Heard) -> Any:
        return Response(
            id=None,
            model=self.model.address,
            message=LmMessage(role="assistant", parts=(TextPart(text=heard.text),)),
            finish_reason="length" if heard.finish == "length" else "stop",
            usage=Usage(input_tokens=heard.prompt_tokens, output_tokens=heard.completion_tokens),
        )

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
                api_base=self.urls[0] if self.urls else None,
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


def _urls(model: Model, provider: str) -> tuple[str, ...]:
    own = DEFAULT_ENDPOINTS.get(provider)
    urls = model.endpoints or ((own,) if own else ())
    if any(urlsplit(url).username is not None for url in urls):
        raise BackendError(
            f"the endpoint of the model `{model.name}` holds a user name\n"
            "  = put the key into an environment variable, and the variable's name under `key:`"
        )
    return tuple(url.rstrip("/") for url in urls)
