"""Where there is one of a thing, it is not called by its plural."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.errors import counted
from tests.servers.recorder import Recorder, Reply, obey
from tests.test_report import Page
from tests.worlds import cases, write_world

PLURAL = re.compile(r"(?<![\d.,:-])1 (?:more |known )?(?!is\b|was\b)[a-z]+s\b")

PROGRAM = """version: 1
program: small
about: One of everything.
attributes: two
data: {{format: jsonl, path: cases.jsonl}}
targets: {{each: [high], of: [mercy]}}
deciders:
  one: {{use: baseline}}
  other: {{use: prompt_aligned}}
models:
  here: {{use: openai/tiny, endpoint: "{url}/v1", retries: 0}}
model: here
"""


def test_the_search_for_plurals_finds_them() -> None:
    for said in ("1 calls, 2 tokens", "(1 times)", "1 of 1 decisions", "1 more reasons"):
        assert PLURAL.search(said)
    for said in ("11 calls", "1.1 tokens", "0,1 cases", "1 call, 2 tokens", "1 was", "1 is"):
        assert not PLURAL.search(said)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 calls"), (1, "1 call"), (1.0, "1 call"), (1500, "1,500 calls")]
)
def test_counted(number: float, said: str) -> None:
    assert counted(number, "call") == said


def fails(reply: Reply) -> Reply:
    return Reply(body=b"no", status=500)


def sends_one_token(reply: Reply) -> Reply:
    return replace(reply, tokens=(1, 0))


@pytest.mark.parametrize("change", [fails, sends_one_token])
def test_no_command_says_one_of_several(change: object, tmp_path: Path) -> None:
    """One case, one target, one call of each decider, and one token or one failure."""
    store = ["--store", str(tmp_path / "a.db")]
    page = tmp_path / "x.html"
    with Recorder() as server:
        server.script = lambda asked: change(obey(asked))  # type: ignore[operator]
        path = str(write_world(tmp_path, cases(1), PROGRAM.format(url=server.url)))
        said = [
            CliRunner().invoke(cli, [*words, *store]).output
            for words in (
                ["explain", path],
                ["run", path, "--only", "one"],
                ["run", path, "--only", "one", "--max-failures", "0"],
                ["run", path],
                ["runs"],
                ["runs", "show", "last"],
                ["compare", "last:one", "last:other", "--flips"],
                ["report", "last", "-o", str(page)],
            )
        ]
    said.append(Page(page.read_text()).text)
    assert [found for text in said for found in PLURAL.findall(text)] == []
    assert "1 call, " in said[1]
    assert ("1 decision failed" in said[2]) == (change is fails)
