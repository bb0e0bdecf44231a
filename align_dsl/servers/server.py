"""An endpoint -> which server answers there, its version, and the models that it offers."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from align_dsl.engine.quirks import ENDPOINTS
from align_dsl.servers.line import Heard, Line, Trouble, complaint, whole

Kind = Literal["Ollama", "vLLM", "llama.cpp", "transformers serve", "OpenAI-compatible"]

NO_CACHE = "as where there is no Hugging Face cache: it lists that, not what it serves"
IGNORES = {"transformers serve": "ignores schemas"}


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a server has."""

    name: str
    server: Kind
    endpoint: str  # as it is to be written in a program
    use: str  # what to write under `model:` where the endpoint is the provider's own
    digest: str = ""
    size: int | None = None  # bytes
    context: int | None = None
    about: str = ""

    @property
    def endpoint_is_default(self) -> bool:
        return ENDPOINTS.get(self.use.partition("/")[0]) == self.endpoint


@dataclass(frozen=True, slots=True)
class Server:
    """What answers at an endpoint."""

    kind: Kind
    version: str
    root: str
    base: str  # where OpenAI's dialect is spoken: what to write as `endpoint:`
    seconds: float
    listed: tuple[dict[str, Any], ...] = ()  # what that list holds
    props: dict[str, Any] = field(default_factory=dict)  # llama.cpp only
    problem: str = ""  # why the list cannot be read


class NoServer(Exception):
    """Something answers, but no server of models; or it wants a key."""

    def __init__(self, said: str, advice: str = "") -> None:
        super().__init__(said)
        self.advice = advice


def places() -> tuple[str, ...]:
    """Where to look when nobody names an endpoint: loopback, and the OLLAMA_HOST of the user."""
    named = (os.environ.get("OLLAMA_HOST") or "").strip()
    found = [_ollama_host(named)] if named else []
    return tuple(dict.fromkeys(e for e in (*found, *ENDPOINTS.values()) if e))


def _ollama_host(named: str) -> str:
    """`0.0.0.0:11434`, as it is said to the server -> a URL to call it by."""
    with_scheme = named if "://" in named else f"http://{named}"
    try:
        parts = urlsplit(with_scheme)
        host, port = parts.hostname or "localhost", parts.port
    except ValueError:
        return ""
    if parts.username or parts.scheme not in {"http", "https"}:
        return ""
    host = "localhost" if host in {"0.0.0.0", "::", "127.0.0.1"} else host
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme] if "://" in named else 11434
    return f"{parts.scheme}://{host}:{port or usual}"


async def identify(line: Line, endpoint: str) -> Server:
    """Raises Trouble where nothing answers, NoServer where something else does."""
    root = endpoint.removesuffix("/v1")
    heard = await line.get(f"{root}/api/version")
    if version := heard.mapping().get("version"):
        return Server("Ollama", str(version), root, f"{root}/v1", heard.seconds)
    took, first = heard.seconds, heard
    for base in dict.fromkeys((f"{root}/v1", endpoint)):
        heard = await line.get(f"{base}/models")
        if isinstance(heard.mapping().get("data"), list):
            return await _openai_like(line, root, base, heard, took)
        if heard.status in {401, 403}:
            said = f"HTTP {heard.status}: the server wants a key, or another one"
            raise NoServer(said, "name the variable that holds it: `key:` in a program, or --key")
    schema = await _quietly(line, f"{root}/openapi.json")
    if _is_transformers(schema):
        problem = f"HTTP {heard.status}: {line.short(complaint(heard))}"
        if heard.status == 500:
            problem += f", {NO_CACHE}"
        kind: Kind = "transformers serve"
        return Server(kind, "", root, f"{root}/v1", took, problem=problem)
    raise _stranger(line, first, heard)


async def _openai_like(line: Line, root: str, base: str, heard: Heard, took: float) -> Server:
    listed = tuple(m for m in heard.mapping()["data"] if isinstance(m, dict) and "id" in m)
    owners = {str(m.get("owned_by", "")) for m in listed}
    if "llama.cpp" in heard.headers.get("server", "") or "llamacpp" in owners:
        props = await _quietly(line, f"{root}/props")
        version = str(props.get("build_info", ""))
        return Server("llama.cpp", version, root, base, took, listed, props)
    is_vllm = "vllm" in owners
    told = (await _quietly(line, f"{root}/version")).get("version") if is_vllm else None
    # its owners are the authors of what it lists, and one of them may be called `vllm`
    if not told and _is_transformers(await _quietly(line, f"{root}/openapi.json")):
        return Server("transformers serve", "", root, base, took, listed)
    kind: Kind = "vLLM" if is_vllm else "OpenAI-compatible"
    return Server(kind, str(told or ""), root, base, took, listed)


async def _quietly(line: Line, url: str) -> dict[str, Any]:
    try:
        return (await line.get(url)).mapping()
    except Trouble:
        return {}


def _is_transformers(schema: dict[str, Any]) -> bool:
    paths = schema.get("paths")
    return isinstance(paths, dict) and {"/load_model", "/v1/chat/completions"} <= paths.keys()


def _stranger(line: Line, first: Heard, heard: Heard) -> NoServer:
    if heard.status == 503:
        return NoServer("HTTP 503: the server is still loading, or overloaded", "try again later")
    if first.html or heard.html:
        return NoServer(
            "an HTML page answers here: this is no server of models",
            "see that the port is the right one, and not that of a web page",
        )
    if 300 <= heard.status < 400:
        return NoServer(
            f"HTTP {heard.status}: the server redirects elsewhere, which is not followed",
            "write the endpoint that it redirects to",
        )
    said = line.short(complaint(heard) or heard.text) or "an empty answer"
    return NoServer(
        f"something answers, but no server of models (HTTP {heard.status}: {said})",
        "see that the endpoint is the right one",
    )


async def offers(line: Line, server: Server, key: str = "") -> tuple[Offer, ...]:
    """The models that a server has. Raises Trouble."""
    if server.kind == "Ollama":
        line.requests += 1
        return await asyncio.to_thread(_of_ollama, server, key)
    return tuple(_offer(server, one) for one in server.listed)


def ollama_client(root: str, key: str = "", seconds: float | None = 10.0) -> Any:
    """A client of the ollama package that goes nowhere else, and takes no key but the named one."""
    import ollama

    # without this header the package would send what OLLAMA_API_KEY holds, wherever `root` is
    headers = {"authorization": f"Bearer {key}" if key else "none"}
    return ollama.Client(
        host=root, headers=headers, timeout=seconds, follow_redirects=False, trust_env=False
    )


def _of_ollama(server: Server, key: str) -> tuple[Offer, ...]:
    try:
        with ollama_client(server.root, key) as client:
            listed = client.list().models
    except Exception as error:  # httpx's, pydantic's or ollama's own
        raise Trouble(
            "odd", f"its list of models cannot be read ({type(error).__name__})"
        ) from None
    made = []
    for one in listed:
        if not one.model:
            continue
        details = one.details
        about = (details.parameter_size, details.quantization_level) if details else ()
        made.append(
            Offer(
                name=one.model,
                server=server.kind,
                endpoint=server.root,
                use=f"ollama_chat/{one.model}",
                digest=one.digest or "",
                size=int(one.size) if one.size is not None else None,
                about=" ".join(a for a in about if a),
            )
        )
    return tuple(made)


def _offer(server: Server, one: dict[str, Any]) -> Offer:
    endpoint = server.base
    provider = "hosted_vllm" if server.kind == "vLLM" else "openai"
    for known, place in ENDPOINTS.items():
        if place == endpoint and known != "ollama_chat":
            provider = known
    meta = one.get("meta") if isinstance(one.get("meta"), dict) else {}
    assert isinstance(meta, dict)
    name = str(one["id"])
    return Offer(
        name=name,
        server=server.kind,
        endpoint=endpoint,
        use=f"{provider}/{name}",
        size=whole(meta.get("size")),
        context=_window(server, one, meta),
        about=str(meta.get("ftype") or one.get("root") or IGNORES.get(server.kind, "")),
    )


def _window(server: Server, one: dict[str, Any], meta: dict[str, Any]) -> int | None:
    slot = server.props.get("default_generation_settings")
    in_slot = slot.get("n_ctx") if isinstance(slot, dict) else None
    said = (in_slot, one.get("max_model_len"), meta.get("n_ctx"))
    return next((n for n in map(whole, said) if n), None)
