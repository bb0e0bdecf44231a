"""One server -> its answers to single requests: bounded in time and size.

Whatever goes wrong on the way is a `Trouble` with a sentence for a person, never another exception.
Redirects are not followed and proxies not used: only the endpoint itself is ever contacted.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from align_dsl.errors import visible

LARGEST = 8 * 1024 * 1024  # bytes of an answer that are read
CONNECT_SECONDS = 5.0
LOOK_SECONDS = 10.0  # for a request that asks no model anything
SHOWN = 160  # characters of an answer that a finding quotes
TRUST = (
    "write the name that the certificate is for; where it was signed by nobody widely known, set"
    " SSL_CERT_FILE to a file with the certificate of who signed it"
)
PLAINLY = "see whether the endpoint begins with http://, not https://"


class Trouble(Exception):
    """A request without a usable answer. `status` is 0 where the server gave none."""

    def __init__(
        self,
        kind: Literal["unreachable", "timeout", "cut", "status", "odd"],
        said: str,
        status: int = 0,
        advice: str = "",
    ) -> None:
        super().__init__(said)
        self.kind, self.status, self.advice = kind, status, advice


@dataclass(frozen=True, slots=True)
class Heard:
    """What a server sent."""

    status: int
    headers: dict[str, str]  # names in lower case
    text: str
    seconds: float

    @property
    def html(self) -> bool:
        start = self.text[:200].lstrip().lower()
        return start.startswith(("<!doctype html", "<html")) or "text/html" in self.headers.get(
            "content-type", ""
        )

    def json(self) -> Any:
        """The body as JSON, or None where it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None

    def mapping(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none, or the status says error."""
        said = self.json() if self.status == 200 else None
        return said if isinstance(said, dict) else {}


class Line:
    """The connections to one server."""

    def __init__(self, key: str = "", look: float = LOOK_SECONDS) -> None:
        self.requests, self.look = 0, look
        self._key = key
        self._session: Any = None

    async def __aenter__(self) -> Line:
        import aiohttp

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # a turn of the loop, in which the transports end

    async def get(self, url: str) -> Heard:
        return await self._send("GET", url, None, self.look)

    async def post(self, url: str, body: Any, seconds: float) -> Heard:
        return await self._send("POST", url, body, seconds)

    async def _send(self, method: str, url: str, body: Any, seconds: float) -> Heard:
        import aiohttp

        self.requests += 1
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with self._session.request(
                method, url, json=body, allow_redirects=False, timeout=timeout
            ) as response:
                raw = await self._read(response)
                headers = {k.lower(): v for k, v in response.headers.items()}
                text = raw.decode("utf-8", "replace")
                return Heard(response.status, headers, text, time.monotonic() - began)
        except aiohttp.ConnectionTimeoutError:
            raise Trouble("unreachable", f"no connection within {CONNECT_SECONDS:g} s") from None
        except TimeoutError:
            raise Trouble("timeout", f"no answer within {seconds:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            said = f"its certificate is not trusted ({_reason(error.certificate_error)})"
            raise Trouble("unreachable", said, advice=TRUST) from None
        except aiohttp.ClientConnectorSSLError as error:
            said = f"no encrypted connection could be made ({_reason(error.os_error)})"
            raise Trouble("unreachable", said, advice=PLAINLY) from None
        except aiohttp.ClientConnectorError as error:
            raise Trouble("unreachable", _why(error.os_error)) from None
        except (aiohttp.InvalidURL, ValueError) as error:  # or a key that no header can hold
            raise Trouble("odd", f"cannot be asked ({type(error).__name__})") from None
        except (aiohttp.ClientError, OSError) as error:
            said = f"hung up before its answer was complete ({type(error).__name__})"
            raise Trouble("cut", said) from None

    async def _read(self, response: Any) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_chunked(65536):
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                raise Trouble("odd", f"an answer of more than {LARGEST // 1024**2} MB")
        return b"".join(parts)

    def short(self, text: str) -> str:
        """Words of a server, fit to be quoted on one line of a terminal."""
        said = visible(" ".join(self.scrubbed(text).split()))
        return said if len(said) <= SHOWN else f"{said[: SHOWN - 3]}..."

    def scrubbed(self, text: str) -> str:
        """Text that may be shown: a server may repeat the key it was sent."""
        return text.replace(self._key, "[key]") if self._key else text


def _reason(error: Exception) -> str:
    """What OpenSSL says is wrong."""
    said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or ""
    return visible(str(said).lower().replace("_", " ")) or type(error).__name__


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no host of this name is known"
    if not error.errno or error.errno < 0:
        return "the connection failed"
    said = os.strerror(error.errno)
    return said[0].lower() + said[1:]


def whole(said: Any) -> int | None:
    """A count that a server tells, where it is one that can be true."""
    if isinstance(said, bool) or not isinstance(said, int):
        return None
    return said if 0 <= said < 10**12 else None


def complaint(heard: Heard) -> str:
    """What a server says is wrong, in any of the forms that servers have for it; else nothing."""
    said = heard.json()
    if not isinstance(said, dict):
        return "" if heard.status == 200 else heard.text
    error = said.get("error") or said.get("detail")
    if isinstance(error, dict):
        error = error.get("message") or error
    if error:
        return error if isinstance(error, str) else json.dumps(error)
    if said.get("object") == "error":  # vLLM before 0.10
        return str(said.get("message", "an error"))
    return "" if heard.status == 200 else heard.text
