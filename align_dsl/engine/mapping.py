"""litellm's own mapping: what a request looks like for a provider, made once per shape."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from align_dsl.engine.prompt import Message, Shape, schema
from align_dsl.errors import BackendError


def litellm_module() -> Any:
    """litellm, kept from the network and from stray `.env` files while it is imported."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    os.environ.setdefault("LITELLM_OFFLINE_MODE", "true")
    import litellm

    litellm.suppress_debug_info = True
    return litellm


@functools.cache
def whole_litellm() -> Any:
    """litellm as it answers by itself; its models are built here, once, as building them warns."""
    litellm = litellm_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm.ModelResponse()
    return litellm


@dataclass(frozen=True, slots=True)
class Parameters:
    temperature: float
    max_tokens: int
    response_format: bytes  # as JSON; empty for none
    extra: Extra = ()


Extra = tuple[tuple[str, Any], ...]
"""Fields of a request that only one kind of server knows; litellm is not asked about them."""

Template = Callable[[list[Message]], tuple[str, dict[str, Any]]]


@functools.lru_cache(maxsize=1024)
def template(provider: str, name: str, endpoint: str, parameters: Parameters) -> Template:
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
def format_of(shape: Shape) -> bytes:
    return format_as({"name": "answer", "schema": schema(shape), "strict": True})


def format_as(wanted: Mapping[str, Any] | None) -> bytes:
    if not wanted:
        return b""
    inner = {k: wanted[k] for k in ("name", "schema", "strict") if k in wanted}
    return orjson.dumps({"type": "json_schema", "json_schema": inner})


@functools.lru_cache(maxsize=64)
def takes_seed(address: str) -> bool:
    """Whether a provider takes a seed. One that takes none is asked without."""
    try:
        return "seed" in (litellm_module().get_supported_openai_params(address) or ())
    except Exception:  # of many kinds, for providers and models that litellm does not know
        return True
