"""What servers say of themselves: which kind they are, how long a window, by which backend held.

Each is looked at before it is first asked. One that says nothing, or is not itself yet, is looked
at again before the next question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from align_dsl.engine.limiter import Endpoint, Limiter
from align_dsl.engine.ollama import own_window
from align_dsl.engine.quirks import GUIDANCE, PLAIN, VLLM, is_guidance, which_backend
from align_dsl.engine.quirks import dialect as dialect_of
from align_dsl.engine.refusal import BUSY
from align_dsl.engine.session import Session

FORGOTTEN_SECONDS = 60.0  # how long one is left alone that loads for ever, or was not there


class Looks:
    """At the servers of one model."""

    def __init__(
        self, provider: str, name: str, timeout: float, session: Session, limiter: Limiter
    ) -> None:
        self.provider, self.name, self.timeout = provider, name, timeout
        self.session, self.limiter = session, limiter

    async def all(self, silent: Collection[str]) -> None:
        """At all but those that were found `silent`: these are left alone for a while."""
        now = self.limiter.clock()
        for endpoint in self.limiter.endpoints:
            if endpoint.url in silent:
                endpoint.gone, endpoint.rests_until = True, now + FORGOTTEN_SECONDS
        unknown = (e for e in self.limiter.endpoints if not e.looked and e.url not in silent)
        await asyncio.gather(*(self.meet(endpoint) for endpoint in unknown))

    async def meet(self, endpoint: Endpoint) -> None:
        """Look at a server before it is first asked. Who comes meanwhile waits for the same."""
        if endpoint.looking is None:
            endpoint.looking = asyncio.ensure_future(self._look_at(endpoint))
        await asyncio.shield(endpoint.looking)

    async def _look_at(self, endpoint: Endpoint) -> None:
        try:
            endpoint.looks += 1
            look = self._at_ollama if self.provider == "ollama_chat" else self._at_others
            endpoint.looked = await look(endpoint)
        finally:
            endpoint.looking = None
        self.limiter.look_again()  # it may get more at once than one that nobody knows

    async def _at_ollama(self, endpoint: Endpoint) -> bool:
        url = f"{endpoint.url}/api/show"
        status, shown, _ = await self.session.told("POST", url, {"model": self.name})
        endpoint.window = own_window(shown)
        return _has_said(status)

    async def _at_others(self, endpoint: Endpoint) -> bool:
        status, listed, server = await self.session.told("GET", f"{endpoint.url}/models")
        if endpoint.dialect is PLAIN:  # else it has said so meanwhile, in a reply
            endpoint.is_a(dialect_of(listed, server))
        if endpoint.dialect is VLLM:
            return _has_said(status) and await self._at_vllm(endpoint)
        return endpoint.dialect is not PLAIN or _has_said(status)

    async def _at_vllm(self, endpoint: Endpoint) -> bool:
        """Its first answer that is held to a form may take half a minute."""
        url, asked = f"{endpoint.url}/chat/completions", which_backend(self.name)
        status, said, _ = await self.session.told("POST", url, asked, self.timeout)
        if is_guidance(status, said):
            endpoint.is_a(GUIDANCE)
        return _has_said(status)


def _has_said(status: int) -> bool:
    """Whether a server has told of itself, or will not."""
    return 0 < status < 500 and status not in BUSY
