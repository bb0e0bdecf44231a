"""`model:` and `models:` -> models: each a backend, an address and how to talk to it."""

from __future__ import annotations

from collections.abc import Collection

from align_dsl.errors import Findings, Span, nearest
from align_dsl.language.program import Model
from align_dsl.language.schema import ModelDeclaration

PROVIDERS = [
    "anthropic",
    "azure",
    "bedrock",
    "cerebras",
    "cohere",
    "custom_openai",
    "dashscope",
    "databricks",
    "deepinfra",
    "deepseek",
    "fireworks_ai",
    "gemini",
    "github",
    "groq",
    "hosted_vllm",
    "huggingface",
    "llamafile",
    "lm_studio",
    "mistral",
    "moonshot",
    "nvidia_nim",
    "ollama",
    "ollama_chat",
    "openai",
    "openrouter",
    "perplexity",
    "replicate",
    "sagemaker",
    "sambanova",
    "together_ai",
    "vertex_ai",
    "watsonx",
    "xai",
    "xinference",
]
"""Prefixes that litellm knows; a list of our own, because importing litellm takes seconds."""


def resolve_model(
    written: str,
    span: Span,
    declared: dict[str, ModelDeclaration],
    backends: Collection[str],
    found: Findings,
) -> Model:
    """A model by its name under `models:`, or by what one would write there after `use:`."""
    one = declared.get(written)
    use = one.use if one else written
    backend, address = _split(use, backends)
    model = Model(name=written, backend=backend, address=address)
    if not backend:
        provider = use.partition("/")[0]
        options = [*declared, *sorted(backends), *(f"{p}/..." for p in PROVIDERS)]
        if provider in PROVIDERS:
            found.error(span, f"`{use}` names no model", f"write `{provider}/MODEL`")
        elif "://" in use:
            hint = "name it under `models:`, as in `small: {use: openai/MODEL, endpoint: URL}`"
            found.error(span, f"`{use}` is an address, not a model", hint)
        elif "/" in use:
            found.error(span, f"no provider named `{provider}`", nearest(provider, PROVIDERS))
        else:
            hint = nearest(use, options)
            if not hint.startswith("did"):
                hint = "write embedded, scripted:FILE, PROVIDER/MODEL, or a name under `models:`"
            found.error(span, f"no model named `{use}`", hint)
    elif backend != "embedded" and not address:
        found.error(span, f"`{use}` does not say which", f"for instance `{backend}:PATH`")
    if one:
        options_given = one.model_dump(exclude={"use"}, exclude_none=True)
        if isinstance(one.endpoint, list):
            options_given["endpoint"] = tuple(one.endpoint)
        model = model.model_copy(update=options_given)
    return model


def _split(use: str, backends: Collection[str]) -> tuple[str, str]:
    head, colon, rest = use.partition(":")
    if head in backends and head != "litellm":
        return head, rest if colon else ""
    provider, slash, name = use.partition("/")
    if slash and name and provider in PROVIDERS:
        return "litellm", use
    return "", use
