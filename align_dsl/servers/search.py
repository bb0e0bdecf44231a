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

    offers: tuple[Offer, ...]
    servers: tuple[Server, ...]
    silent: dict[str, str]

    def said(self) -> str:
        """Why there is nothing, address by address."""
        empty = [f"{s.root} ({s.kind}): offers no model" for s in self.servers]
        met = [f"{place}: {what}" for place, what in self.silent.items()]
        return "no server offers a model; tried " + "; ".join([*empty, *met])


async def search(endpoints: Sequence[str] | None = None, key: str = "") -> Found:
    """Ask all of them at once; without any, the usual ports of this machine.

    A key goes to what somebody named, never to whatever happens to listen here.
    """
    wanted = tuple(dict.fromkeys(endpoints)) if endpoints else places()
    async with Line(key if endpoints else "") as line:
        got = await asyncio.gather(*(_look(line, e, key if endpoints else "") for e in wanted))
    servers = {g[0].root: g[0] for g in got if not isinstance(g, str)}
    offered = {o.endpoint + " " + o.name: o for g in got if not isinstance(g, str) for o in g[1]}
    silent = {e: g for e, g in zip(wanted, got, strict=True) if isinstance(g, str)}
    return Found(tuple(offered.values()), tuple(servers.values()), silent)


async def _look(line: Line, endpoint: str, key: str) -> tuple[Server, tuple[Offer, ...]] | str:
    try:
        server = await identify(line, endpoint)
        if server.problem:
            return f"{server.kind}, whose list of models cannot be read: {server.problem}"
        return server, await offers(line, server, key)
    except (Trouble, NoServer) as why:
        return str(why)
