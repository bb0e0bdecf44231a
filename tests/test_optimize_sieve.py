"""What a model may write in place of instructions: anything. What of it is tried, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from align_dsl.algorithms.rate_together import INSTRUCTIONS
from align_dsl.language.wording import FIELDS, fields_in
from align_dsl.optimize.reword import rewordable
from align_dsl.optimize.sieve import Sieve, seen
from align_dsl.optimize.task import Task, ready
from align_dsl.records.store import Store
from tests.test_optimize_reword import GOOD, OTHER, world

PIECES = st.sampled_from(
    [
        *("{attribute}", "{", "}", "{{", "}}", "{colour}", "{0}", "{a.b}", "{x!r}"),
        *("$", "$shots", "#", "'", '"', "\\", ": ", "- ", "|", "%", "\n", "\t"),
        *("\x00", "\x1b[2J", "\u202e", "null", "~"),
    ]
)
BABBLE = st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=8).map("".join)


@pytest.fixture(scope="module")
def sieve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sieve]:
    path = world(tmp_path_factory.mktemp("sieve"), OTHER, GOOD)
    with Store.open(Path(":memory:")) as store:
        made = ready(Task(path), store)
        (setting,) = rewordable(made)
        yield Sieve(made, setting, ())
        made.close()


@given(before=BABBLE, after=BABBLE)
@example(before="$", after="")
@example(before="", after=" {colour}")
@example(before='{"because": "', after='"}')
@settings(max_examples=150, deadline=None)
def test_whatever_is_written_is_tried_as_it_stands_or_refused(
    before: str, after: str, sieve: Sieve
) -> None:
    text = seen(before + INSTRUCTIONS + after)
    why = sieve.wrong(text, ())
    others = [name for name in fields_in(text) if name not in FIELDS]
    assert bool(others) <= bool(why)
    if why:
        assert why == "said before" or "compile" in why or "far too long" in why
        return
    program = sieve.made.space.program({**sieve.made.space.default, sieve.name: text})
    assert program.deciders[0].step("rate").params["instructions"] == text


@given(text=BABBLE)
@settings(max_examples=50, deadline=None)
def test_babble_alone_is_never_tried(text: str, sieve: Sieve) -> None:
    assert sieve.wrong(seen(text), ())
