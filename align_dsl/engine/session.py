"""Connections to the servers of one model: opened when first needed, kept open, closed for good."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any, Literal
from weakref import WeakSet

import orjson

from align_dsl.engine.adapter import NoAnswer, NotNow
from align_dsl.engine.fork import outlives_forks
from align_dsl.engine.reply import Reply, seconds_of
from align_dsl.types import Failure

CONNECT_SECONDS = 10
IDLE_SECONDS = 4  # uvicorn, and so vLLM, hangs up after 5: do not send on a line about to go dead
LOOK_SECONDS = 10.0  # in which a server must say what it is,
LOOK_CONNECT_SECONDS = 3.0  # and be there at all
END_SECONDS = 2.0  # in which a program that ends can close what it has left open
# uvicorn hangs up after a 500 that nobody caught, without saying so: no question may follow on that
LAST = {"Connection": "close"}
CLOSED = Failure(status="unreachable", message="the model has been closed")


class Session:
    """Lives on one event loop."""

    def __init__(
        self, timeout: float, key: Callable[[], str], scrubbed: Callable[[str], str]
    ) -> None:
        self.timeout, self.key, self.scrubbed = timeout, key, scrubbed
        self._closed = False
        self._open: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None  # on which it is open
        outlives_forks(self)
        _sessions.add(self)

    async def post(self, endpoint: str, url: str, body: bytes) -> Reply:
        """What the server says. Raises NotNow where it says nothing."""
        import aiohttp

        try:
            # redirects could carry a key elsewhere
            async with self._opened().post(url, data=body, allow_redirects=False) as response:
                raw = await response.read()
                later = seconds_of(response.headers.get("Retry-After"))
                return Reply(response.status, raw, later, response.headers.get("Server", ""))
        except aiohttp.ClientConnectorError as error:
            wrong = f"{endpoint} cannot be reached: {error}"
        except aiohttp.ConnectionTimeoutError:
            wrong = f"{endpoint} cannot be reached within {CONNECT_SECONDS} s"
        except TimeoutError:
            message = f"no answer within {self.timeout:g} s from {endpoint}"
            raise NotNow(Failure(status="timeout", message=message)) from None
        except (aiohttp.ClientError, OSError) as error:
            wrong = f"{endpoint} hung up before its answer was complete: {error}"
        raise NotNow(Failure(status="unreachable", message=self.scrubbed(wrong)))

    async def told(
        self,
        method: Literal["GET", "POST"],
        url: str,
        asked: Any = None,
        seconds: float | None = None,
    ) -> tuple[int, Any, str]:
        """What a server says of itself, if anything: a status, that, and what it is called."""
        import aiohttp

        body = None if asked is None else orjson.dumps(asked)
        total = LOOK_SECONDS if seconds is None else seconds
        soon = aiohttp.ClientTimeout(total=total, sock_connect=LOOK_CONNECT_SECONDS)
        status, server = 0, ""
        try:
            async with self._opened().request(
                method, url, data=body, allow_redirects=False, timeout=soon, headers=LAST
            ) as response:
                server = response.headers.get("Server", "")
                raw = await response.read()
                status = response.status
                return status, orjson.loads(raw), server
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            return status, {}, server

    async def close(self) -> None:
        self._closed = True
        if self._open is not None:
            session, self._open = self._open, None
            await session.close()
            await asyncio.sleep(0)  # a turn of the loop, in which the transports end

    def begin_anew(self) -> None:
        """In the child of a fork: what is open belongs to its parent."""
        self._open = self._loop = None

    def _opened(self) -> Any:
        """Raises NoAnswer once all is closed, or where there is no key that could be sent."""
        if self._open is None:
            import aiohttp

            if self._closed:
                raise NoAnswer(CLOSED)
            headers = {"Content-Type": "application/json"}
            if key := self.key():
                headers["Authorization"] = f"Bearer {key}"
            self._open = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self.timeout, sock_connect=CONNECT_SECONDS),
            )
            self._loop = asyncio.get_running_loop()
        return self._open


_sessions: WeakSet[Session] = WeakSet()


@atexit.register
def _close_all() -> None:
    """A script may end without a word: what is open then would be complained of on its stderr."""
    ends = [
        asyncio.run_coroutine_threadsafe(session.close(), session._loop)
        for session in list(_sessions)
        if session._open is not None and session._loop is not None and session._loop.is_running()
    ]
    wait(ends, END_SECONDS)
