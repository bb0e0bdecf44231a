"""The name of a model -> Ollama's own pull, as a stream of how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from align_dsl.errors import BackendError, visible
from align_dsl.servers.server import ollama_client


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a pull is. `total` is 0 where there is nothing to count."""

    status: str
    layer: str = ""
    done: int = 0
    total: int = 0


def pull(name: str, endpoint: str, key: str = "") -> Iterator[Progress]:
    """Raises BackendError, with what Ollama says is wrong."""
    import httpx
    import ollama

    last = ""
    try:
        with ollama_client(endpoint, key, seconds=None) as client:
            for step in client.pull(name, stream=True):
                last = step.status or ""
                layer = (step.digest or "").removeprefix("sha256:")[:12]
                yield Progress(visible(last), layer, step.completed or 0, step.total or 0)
    except ollama.ResponseError as error:
        said = visible(str(error.error or error).strip())
        raise BackendError(f"Ollama cannot pull `{visible(name)}`: {said}{_hint(said)}") from None
    except (ConnectionError, httpx.ConnectError):
        raise BackendError(
            f"no Ollama answers at {endpoint}\n"
            "  = start it with `ollama serve`, or name where it is with --endpoint"
        ) from None
    except (httpx.HTTPError, ValueError) as error:
        raise BackendError(
            f"the pull of `{visible(name)}` broke off ({type(error).__name__})\n"
            "  = the same command again goes on where it stopped"
        ) from None
    if last != "success":
        raise BackendError(
            f"the pull of `{visible(name)}` ended before it was done ({visible(last)})\n"
            "  = the same command again goes on where it stopped"
        )


def _hint(said: str) -> str:
    low = said.lower()
    if "does not exist" in low or "not found" in low or "manifest" in low:
        return "\n  = see that the name is one of https://ollama.com/library, such as llama3.2:3b"
    if "no space" in low:
        return "\n  = free some disk space, or set OLLAMA_MODELS to a folder with more"
    if "dial tcp" in low or "lookup" in low or "timeout" in low:
        return "\n  = the server, not this command, fetches models: see that it has a network"
    return ""
