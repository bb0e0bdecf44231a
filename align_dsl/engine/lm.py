"""An engine for `dspy.LM(engine=...)`: a question -> one request -> what the model said.

Servers that people run themselves are sent requests by our own `Wire`; all other providers go
through `litellm.completion` whole. What goes wrong is told apart: `NotNow` may be asked again,
`NoAnswer` may not. Keys appear in neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

import orjson

from align_dsl.engine.adapter import TRAIL, NoAnswer, NotNow, Said, Trail
from align_dsl.engine.expected import INSTEAD, Token, Weigher
from align_dsl.engine.expected import tokens as tokens_of
from align_dsl.engine.grammar import held, held_to
from align_dsl.engine.limiter import Endpoint
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
from align_dsl.engine.quirks import ENDPOINTS, SELF_HOSTED, Dialect, is_too_long
from align_dsl.engine.refusal import BUSY, UNHEARD
from align_dsl.engine.reply import Complaint, Heard, header_of, plain, read, seconds_of
from align_dsl.engine.session import CLOSED
from align_dsl.engine.texts import Texts, response, talk
from align_dsl.engine.wire import Wire
from align_dsl.errors import BackendError
from align_dsl.language.program import Model
from align_dsl.types import Failure, ScaleWeights

Asking = Callable[[Dialect | None], Parameters]


class Engine(Texts):
    """What DSPy calls. One per model; safe to call from many threads, never after `close`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.provider, _, self.name = model.address.partition("/")
        self.urls = _urls(model, self.provider)
        self.own_socket = self.provider in SELF_HOSTED and bool(self.urls)
        self._closed = False
        # where litellm answers whole, it is held to so many at once here
        self._slots = threading.BoundedSemaphore(model.concurrency)
        self._weighers: dict[tuple[str, bool], Weigher] = {}  # by endpoint, and how it tells
        self.wire: Wire | None = None
        if self.own_socket:
            self.wire = Wire(
                model, self.provider, self.name, self.urls, self.sent_key, self.scrubbed
            )

    @property
    def batches(self) -> bool:
        return self.wire is not None and self.wire.batches

    def look(self, silent: Collection[str] = ()) -> None:
        """Learn what kind of servers answer, beforehand; all but those found `silent`."""
        if self.wire is not None:
            self.wire.look(silent)

    def weigh(self, said: list[Message], shape: Shape, trail: Trail) -> ScaleWeights:
        """How probable each number of the scale is, as one server has it. Raises NotNow or
        NoAnswer, the latter where none of the servers can tell."""
        if self.wire is None:
            message = f"`rating: expected` is for servers that one runs oneself; {INSTEAD}"
            raise NoAnswer(Failure(status="refused", message=message))

        def tell(allowed: tuple[str, ...], most: int) -> tuple[Token, ...]:
            return ask(allowed, most)[0]

        def ask(allowed: tuple[str, ...], most: int) -> tuple[tuple[Token, ...], Endpoint]:
            def asking(dialect: Dialect | None) -> Parameters:
                assert dialect is not None
                told: Extra = (("logprobs", True), ("top_logprobs", dialect.top))
                if fields := held_to(allowed, dialect):
                    return self._parameters(0, most, b"", (*fields, *told))
                enum = {"enum": [orjson.loads(n) for n in allowed]}
                format_ = format_as({"name": "answer", "schema": enum, "strict": True})
                return self._parameters(0, most, format_, told)

            heard, dialect, endpoint = self._heard(said, asking, trail, None)
            assert endpoint is not None
            trail.constrained = self._constraint(bool(dialect and held_to(allowed, dialect)))
            try:
                return tokens_of(heard.logprobs, endpoint.url), endpoint
            except NotNow:
                trail.judged(False)
                raise

        numbers = written(shape.scale)
        try:
            while True:
                trail.at = self._tellers(numbers)
                first, endpoint = ask(numbers, 1)
                trail.at = (endpoint.url,)  # others tell otherwise, and perhaps of other weights
                weigher = self._weigher(endpoint)
                try:
                    found = weigher.weigh(numbers, tell, first)
                except NoAnswer:
                    if weigher.refuses(numbers) is None:
                        raise
                    continue  # this one cannot tell; another may
                trail.notes.setdefault("expected", []).append(found.note())
                return found.weights
        finally:
            trail.at = ()

    def _tellers(self, numbers: tuple[str, ...]) -> tuple[str, ...]:
        """The servers that may weigh a scale; empty means all. Raises NoAnswer for none."""
        known = [(url, w.refuses(numbers)) for (url, _), w in [*self._weighers.items()]]
        refusals = {url: failure for url, failure in known if failure}
        able = tuple(url for url in self.urls if url not in refusals)
        if not able:
            raise NoAnswer(next(iter(refusals.values())))
        return able if refusals else ()

    def _weigher(self, endpoint: Endpoint) -> Weigher:
        """What is known of a server's tokens. One for all who ask: each would learn it anew."""
        masked = endpoint.dialect.masked
        return self._weighers.setdefault((endpoint.url, masked), Weigher(masked))

    def ask(
        self, said: list[Message], shape: Shape, trail: Trail, temperature: float | None = None
    ) -> Said:
        """One request for an answer of this shape. Raises NotNow or NoAnswer."""

        def asking(dialect: Dialect | None) -> Parameters:
            if dialect and (fields := held(shape, dialect)):
                return self._parameters(temperature, None, b"", fields)
            return self._parameters(temperature, None, format_of(shape))

        warmth = self.model.temperature if temperature is None else temperature
        if warmth > 0 and (self.wire is not None or takes_seed(self.model.address)):
            trail.notes["seed"] = trail.seed
        heard, dialect, _ = self._heard(said, asking, trail, trail.seed)
        trail.constrained = self._constraint(bool(dialect and held(shape, dialect)))
        return Said(heard.text, heard.finish == "length")

    def _parameters(
        self, temperature: float | None, most: int | None, format_: bytes, extra: Extra = ()
    ) -> Parameters:
        warmth = self.model.temperature if temperature is None else temperature
        return Parameters(warmth, most or self.model.max_tokens, format_, extra)

    def _constraint(self, has_layout: bool) -> str:
        if has_layout:
            return "grammar"
        return "format" if self.provider == "ollama_chat" else "json_schema"

    def complete(self, request: Any) -> Any:
        """The same for whoever comes through `dspy.LM`, such as optimizers that write prompts."""
        trail, config = TRAIL.get() or Trail(), request.config
        format_ = format_as(config.response_format)
        asked = self._parameters(config.temperature, config.max_tokens, format_)
        while True:
            try:
                heard, _, _ = self._heard(talk(request), lambda _: asked, trail, config.seed)
                counts = heard.prompt_tokens, heard.completion_tokens
                return response(self.model.address, heard.text, heard.finish, counts)
            except NotNow as not_now:
                if trail.retries >= self.model.retries:
                    raise NoAnswer(not_now.failure) from None
                pause(not_now.pause(trail.retries))
                trail.retries += 1

    def close(self) -> None:
        """End what is in flight, and the connections."""
        self._closed = True
        if self.wire is not None:
            self.wire.close()

    def _heard(
        self, said: list[Message], asking: Asking, trail: Trail, seed: int | None
    ) -> tuple[Heard, Dialect | None, Endpoint | None]:
        """What was said; and how it was asked for and by whom, where that is for us to say."""
        if self._closed:
            raise NoAnswer(CLOSED)
        dialect: Dialect | None = None
        endpoint: Endpoint | None = None
        try:
            if self.wire is not None:
                heard, dialect, endpoint = self.wire.ask(said, asking, trail, seed)
            else:
                heard = self._by_litellm(said, asking(None), trail, seed)
        except orjson.JSONEncodeError:  # half a character has no bytes
            message = "the question holds text that is not valid Unicode, which nobody can be sent"
            raise NoAnswer(Failure(status="refused", message=message)) from None
        return heard, dialect, endpoint

    # --- everybody else ----------------------------------------------------------------------

    def _by_litellm(
        self, said: list[Message], parameters: Parameters, trail: Trail, seed: int | None
    ) -> Heard:
        litellm, format_, key = whole_litellm(), parameters.response_format, self.sent_key()
        orjson.dumps(said)  # raises here, where it can be told from a fault of the provider
        with self._slots:
            trail.calls += 1
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
                    api_key=key or None,
                    max_retries=0,
                    num_retries=0,
                    drop_params=False,
                )
                trail.hear(True)
                heard = read(plain(answer), self.scrubbed)
                trail.spend(heard.prompt_tokens, heard.completion_tokens)
                return heard
            except litellm.exceptions.Timeout as error:
                trail.hear(False)
                raise NotNow(self._failure("timeout", error)) from None
            except litellm.exceptions.APIConnectionError as error:
                trail.hear(False)
                raise NotNow(self._failure("unreachable", error)) from None
            except (KeyError, TypeError, IndexError, AttributeError, Complaint) as error:
                raise NotNow(self._failure("invalid", error)) from None
            except NoAnswer as no:
                trail.spend(*no.tokens)
                raise
            except Exception as error:
                raise self._refusal(error, trail) from None

    def _refusal(self, error: Exception, trail: Trail) -> Exception:
        """What is made of an error that litellm raises for a reply."""
        status = getattr(error, "status_code", 0)
        trail.hear(status not in UNHEARD)
        if is_too_long(str(error)):
            return NoAnswer(self._failure("truncated", error))
        if status not in BUSY:
            return NoAnswer(self._failure("refused", error))
        wait = seconds_of(header_of(error, "retry-after"))
        return NotNow(self._failure("refused" if status == 500 else "unreachable", error), wait)

    def _failure(self, status: Any, error: Exception) -> Failure:
        return Failure(status=status, message=self.scrubbed(str(error))[:300])

    # --- keys --------------------------------------------------------------------------------

    def _key(self) -> str:
        return os.environ.get(self.model.key, "") if self.model.key else ""

    def wrong_key(self) -> str:
        """Why the key cannot be sent; empty where it can be, or where there is none."""
        key = self._key()
        if not key or (key.isascii() and key.isprintable()):
            return ""
        return (
            f"the environment variable `{self.model.key}`, the key of the model"
            f" `{self.model.name}`, holds what no header may: perhaps the end of a line"
        )

    def sent_key(self) -> str:
        """The key as it is sent. Raises NoAnswer where it cannot be: others would show it."""
        if wrong := self.wrong_key():
            raise NoAnswer(Failure(status="refused", message=wrong))
        return self._key()

    def scrubbed(self, text: str) -> str:
        """Text of a server as it may be kept: without our key."""
        key = self._key()
        if key and key in text:
            text = text.replace(key, "[key]")
        return sayable(text)


def _urls(model: Model, provider: str) -> tuple[str, ...]:
    own = ENDPOINTS.get(provider)
    urls = model.endpoints or ((own,) if own else ())
    if any(urlsplit(url).username is not None for url in urls):
        raise BackendError(
            f"the endpoint of the model `{model.name}` holds a user name\n"
            "  = put the key into an environment variable, and the variable's name under `key:`"
        )
    if len(urls) > 1 and provider not in SELF_HOSTED:
        raise BackendError(
            f"the model `{model.name}` has several endpoints, and `{provider}/` can be asked at one"
            " alone\n  = name one, or write `openai/` where the servers speak OpenAI's protocol"
        )
    return tuple(url.rstrip("/") for url in urls)
