"""A model as somebody wrote it -> what to contact, in which dialect, with whose key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from align_dsl.engine.quirks import ENDPOINTS, SELF_HOSTED
from align_dsl.errors import CompileError, Findings, PlanError, Span, visible
from align_dsl.language.models import resolve_model
from align_dsl.language.program import Model
from align_dsl.registry import BACKENDS

Dialect = Literal["ollama", "openai", "hosted", "gguf", "none"]


class BadEndpoint(PlanError):
    """An endpoint that nothing may be sent to. The message holds no secret."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One model to be examined."""

    model: Model
    dialect: Dialect
    endpoint: str = ""  # without a trailing slash

    @property
    def root(self) -> str:
        """Where the server's own routes begin, which stand beside `/v1`."""
        return self.endpoint.removesuffix("/v1")

    @property
    def provider(self) -> str:
        return self.model.address.partition("/")[0] if self.model.backend == "litellm" else ""

    @property
    def name(self) -> str:
        """What the server calls the model."""
        return self.model.address.partition("/")[2] if self.provider else self.model.address

    @property
    def key(self) -> str:
        """The secret itself: to be sent to the endpoint, and shown nowhere."""
        return os.environ.get(self.model.key, "") if self.model.key else ""


def subjects_of(model: Model) -> list[Subject]:
    """A model as each of its servers has it."""
    if len(model.endpoints) < 2:
        return [subject_of(model)]
    return [subject_of(model.model_copy(update={"endpoint": url})) for url in model.endpoints]


def subject_of(model: Model) -> Subject:
    if model.backend == "gguf":
        return Subject(model, "gguf")
    if model.backend != "litellm":
        return Subject(model, "none")
    provider = model.address.partition("/")[0]
    (first, *_) = model.endpoints or ("",)
    endpoint = checked(first) if first else ENDPOINTS.get(provider, "")
    if provider not in SELF_HOSTED or not endpoint:
        return Subject(model, "hosted", endpoint)
    return Subject(model, "ollama" if provider == "ollama_chat" else "openai", endpoint)


def checked(endpoint: str) -> str:
    """The endpoint without its last slash. Raises BadEndpoint."""
    try:
        parts = urlsplit(endpoint)
        named, secret, _ = parts.hostname, parts.username or parts.password, parts.port
    except ValueError:
        raise BadEndpoint("the endpoint is no URL") from None
    if secret:
        raise BadEndpoint(
            "the endpoint holds a user name or password\n"
            "  = put the key into an environment variable, and name that with --key"
        )
    if parts.scheme not in {"http", "https"} or not named:
        said = f"the endpoint `{visible(endpoint)}` is no URL that begins with http:// or https://"
        raise BadEndpoint(f"{said}\n  = for instance http://localhost:8000/v1")
    return endpoint.rstrip("/")


def models_named(names: tuple[str, ...], program: Path | None) -> tuple[Model, ...]:
    """The models that a command line means: its names, or all that the program runs on."""
    if program is None:
        return tuple(_alone(name) for name in names)
    from align_dsl.pipeline import Changes, compile

    used = compile(program).program
    if not names:
        return used.models
    known = {m.name: m for m in used.models}
    for name in names:
        if name not in known:  # declared under `models:` and not used, or written as there
            changed = compile(program, Changes(model=name)).program
            known.update({m.name: m for m in changed.models if m.name == name})
    return tuple(known[name] for name in names)


def _alone(name: str) -> Model:
    found = Findings()
    model = resolve_model(name, Span("MODEL", 1, 1, len(name)), {}, {*BACKENDS, "gguf"}, found)
    try:
        found.stop_if_wrong()
    except CompileError as error:
        first = error.diagnostics[0]
        hint = first.hint.replace(", or a name under `models:`", "; for a name, add --program FILE")
        raise PlanError(f"{visible(first.message)}\n  = {visible(hint)}") from None
    return model
