"""Endpoints -> what the servers there offer, and what was found where none answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from align_dsl.servers.line import Line, Trouble
from align_dsl.servers.server import NoServer, Offer, Server, identify, offers, places


@dataclass(frozen=True, slots=True)
class Found:
    """What answers. `silent` says for each other address what was met there instead."""

    is_named: bool  # somebody said where to look
    offers: tuple[Offer, ...]
    servers: tuple[Server, ...]
    silent: dict[str, Trouble | NoServer]

    def said(self) -> str:
        """Why there is nothing, address by address."""
        empty = [f"{s.root} ({s.kind}): offers no model" for s in self.servers]
        met = [f"{place}: {what}" for place, what in self.silent.items()]
        return "no server offers a model; tried " + "; ".join([*empty, *met])

    def advice(self) -> str:
        """What to do about it. Whatever happens to listen here is nobody's to set right."""
        if not self.is_named:
            return "start a server, or name it with --endpoint, and its key with --key"
        said = dict.fromkeys(why.advice for why in self.silent.values() if why.advice)
        if self.servers:  # one that is there, and has none
            said["give the server a model; `--pull NAME` has Ollama fetch one"] = None
        return "; ".join(said) or "start the server, or name another one with --endpoint"


async def search(endpoints: Sequence[str] | None = None, key: str = "") -> Found:
    """Ask all of them at once; without any, the usual ports of this machine.

    A key goes to what somebody named, never to whatever happens to listen here.
    """
    wanted = tuple(dict.fromkeys(endpoints)) if endpoints else places()
    async with Line(key if endpoints else "") as line:
        got = await asyncio.gather(*(_look(line, e, key if endpoints else "") for e in wanted))
    answering = [g for g in got if isinstance(g, tuple)]
    servers = {server.root: server for server, _ in answering}
    offered = {o.endpoint + " " + o.name: o for _, some in answering for o in some}
    silent = {e: g for e, g in zip(wanted, got, strict=True) if not isinstance(g, tuple)}
    return Found(bool(endpoints), tuple(offered.values()), tuple(servers.values()), silent)


async def _look(
    line: Line, endpoint: str, key: str
) -> tuple[Server, tuple[Offer, ...]] | Trouble | NoServer:
    try:
        server = await identify(line, endpoint)
        if server.problem:
            said = f"{server.kind}, whose list of models cannot be read: {server.problem}"
            return NoServer(said, "see to the server: it answers, but lists no models")
        return server, await offers(line, server, key)
    except (Trouble, NoServer) as why:
        return why
