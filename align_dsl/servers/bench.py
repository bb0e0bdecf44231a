"""What every probe works on: the model, the server it is behind, and what is known of both."""

from __future__ import annotations

from dataclasses import dataclass

from align_dsl.servers.chat import Answer, Chat
from align_dsl.servers.line import Trouble
from align_dsl.servers.server import Server


@dataclass(frozen=True, slots=True)
class Bench:
    chat: Chat
    server: Server | None  # none: a provider elsewhere
    context: int | None = None  # tokens that prompt and answer may have together

    @property
    def kind(self) -> str:
        return self.server.kind if self.server else ""


def answers(got: list[Answer | Trouble]) -> list[Answer]:
    return [a for a in got if isinstance(a, Answer)]


def troubles(got: list[Answer | Trouble]) -> list[Trouble]:
    return [a for a in got if isinstance(a, Trouble)]
