"""Wordings that a model proposes: what it is asked, what is kept of it, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from align_dsl.algorithms.rate_together import INSTRUCTIONS
from align_dsl.commands import cli
from align_dsl.engine.budget import Budget
from align_dsl.engine.execute import Stop
from align_dsl.errors import AlignError, BackendError, BudgetError, PlanError
from align_dsl.optimize.reword import KEY
from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task, ready
from align_dsl.optimize.wordings import HOPELESS, SPARE
from align_dsl.pipeline import Changes, compile
from align_dsl.records.store import Store
from tests.models import TRAINED
from tests.models.gguf_file import random_model
from tests.servers.llama import Llama
from tests.servers.recorder import Recorder, Reply
from tests.test_optimize import kind_and_harsh
from tests.worlds import ATTRIBUTES, write_world

GOOD = f"Look at the deeds. {INSTRUCTIONS}"  # with it the scripted model rates as the labels do
OTHER = f"Take your time. {INSTRUCTIONS}"
THIRD = f"Think twice. {INSTRUCTIONS}"
PROGRAM = """version: 1
program: small
about: A start that is right on some cases.
attributes: two
data: {format: jsonl, path: cases.jsonl, split: {train: 0.5, test: 0.5}}
targets: {each: [low, high], of: [mercy]}
deciders:
  mine: {use: comparative_regression}
model: MODEL
models:
  writer: {use: WRITER}
optimize: {decider: mine, trials: 8, space: {shots: [0, 2]}, propose: {model: writer, count: COUNT}}
"""


def world(folder: Path, *answers: str, count: int = 2, writer: str = "", own: str = "") -> Path:
    """A decider whose model understands one case of three, and all of them after the right words.
    Who writes is a script that gives these answers, each after the one before; or another model."""
    path = write_world(folder, kind_and_harsh(40), PROGRAM, ATTRIBUTES)
    lines: list[dict[str, Any]] = []
    for i, case in enumerate(kind_and_harsh(40)):
        right: dict[str, int] = {c["text"]: c["labels"]["mercy"] for c in case["choices"]}  # type: ignore[attr-defined]
        first = right if i % 3 == 0 else {t: 10 - v for t, v in right.items()}
        for words, ratings in (("Look at the deeds.", right), (None, first)):
            lines.append({"scenario": case["scenario"], "told": words, "ratings": ratings})
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = [{"says": a, "asked": b} for a, b in zip(answers, ("", *answers), strict=False)]
    (folder / "writer.jsonl").write_text("".join(json.dumps(line) + "\n" for line in texts))
    text = path.read_text().replace("COUNT", str(count))
    text = text.replace("MODEL", own or f"scripted:{folder / 'answers.jsonl'}")
    path.write_text(text.replace("WRITER", writer or f"scripted:{folder / 'writer.jsonl'}"))
    return path


@contextlib.contextmanager
def served(folder: Path, *texts: str | Reply, count: int = 2) -> Iterator[tuple[Path, Recorder]]:
    """The same with a writer behind a server, which says all of this in turn, and the last for
    ever."""
    *_, last = texts
    final = last if isinstance(last, Reply) else Reply(last)
    with Recorder(lambda asked: final) as server:
        server.answer(*texts)
        yield world(folder, writer=f"openai/tiny, endpoint: {server.url}/v1", count=count), server


def task(path: Path, **options: Any) -> Task:
    return Task(path, store=path.parents[1] / ".align" / "align.db", **options)


def run(path: Path, told: list[str] | None = None, **options: Any) -> Outcome:
    heard = told if told is not None else []
    return optimize(task(path, **options), told=heard.append)


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(w) for w in words])


def kept(path: Path) -> Any:
    asked = task(path)
    with Store.open(asked.store) as store:
        made = ready(asked, store)
        with Study(asked.where, made.study) as study:
            return study.kept(KEY)


# --- to the end


def test_a_proposal_that_wins_stands_in_the_program(tmp_path: Path) -> None:
    path, told = world(tmp_path, OTHER, GOOD), list[str]()
    outcome = run(path, told)
    assert outcome.chosen is not None
    assert outcome.chosen.done.config["rate.instructions"] == GOOD
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, GOOD, OTHER}
    assert outcome.is_better
    assert outcome.written is not None
    assert "proposed by writer" in outcome.written.read_text()
    made = compile(outcome.written).program.deciders[0]
    assert made.step("rate").params["instructions"] == GOOD
    assert told[1:] == ["`writer` proposed 2 wordings of rate.instructions"]


def test_what_it_cost_is_counted_with_the_study(tmp_path: Path) -> None:
    path = world(tmp_path, OTHER, GOOD)
    outcome = run(path)
    # the default was asked to see what it gets wrong, and is not asked again as a trial
    assert outcome.done[0].sat.spent.paid == 0
    paid = sum(d.sat.spent.paid for d in outcome.done)
    judged = outcome.verdict.calls if outcome.verdict else (0, 0)
    assert outcome.paid == paid + outcome.done[0].sat.spent.calls + 2 + sum(judged)


def test_the_same_study_never_asks_twice(tmp_path: Path) -> None:
    path = world(tmp_path, OTHER, GOOD)
    first = run(path, trials=1)
    before = kept(path)
    # another answer would be given now, to the very same question of a model of the same name
    told = list[str]()
    second = run(path, told, trials=8)
    assert kept(path) == before
    assert second.study == first.study
    assert len(told) == 1  # nothing was asked, so it was not said to be
    assert {d.config["rate.instructions"] for d in second.done} == {None, GOOD, OTHER}


def test_workers_see_the_same_list(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone, both = (world(tmp_path / name, OTHER, GOOD) for name in "ab")
    found = [run(alone), run(both, workers=2)]
    configs = [[d.config for d in one.done] for one in found]
    assert configs[0] == configs[1]
    assert len(configs[0]) == 6


def test_they_come_beside_those_of_the_file(tmp_path: Path) -> None:
    path = world(tmp_path, OTHER, GOOD)
    written = json.dumps({"rate": [OTHER]})
    path.write_text(path.read_text().replace("space:", f"variants: {written}, space:"))
    told = list[str]()
    outcome = run(path, told)
    assert told[1].endswith("; of no use: 4 said before")  # it comes to no other
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, GOOD, OTHER}


def test_they_come_beside_those_of_the_space(tmp_path: Path) -> None:
    path = world(tmp_path, OTHER, GOOD)
    space = json.dumps({"rate.instructions": [OTHER]})
    path.write_text(path.read_text().replace("{shots: [0, 2]}", space))
    assert [d.config["rate.instructions"] for d in run(path).done] == [None, OTHER, GOOD]


def test_instructions_that_are_a_parameter_go_by_its_name(tmp_path: Path) -> None:
    path = world(tmp_path, OTHER, GOOD)
    own = {
        "about": "Rate all together.",
        "params": {"words": INSTRUCTIONS},
        "steps": [
            {
                "name": "rate",
                "use": "rate_together",
                "each": ["attribute"],
                "with": {"instructions": "$words"},
            }
        ],
        "decide": {"use": "closest", "take": "rate"},
    }
    text = path.read_text().replace("{use: comparative_regression}", json.dumps(own))
    path.write_text(text.replace("space: {shots: [0, 2]}, ", ""))
    outcome, told = run(path), list[str]()
    assert outcome.chosen is not None
    assert outcome.chosen.done.config["words"] == GOOD
    assert outcome.is_better
    run(path, told)
    assert told == ["`writer` proposed 2 wordings of words"]


def test_two_who_begin_at_once_take_what_was_said_first(tmp_path: Path) -> None:
    path = world(tmp_path, OTHER, GOOD)
    asked = task(path)
    with Store.open(asked.store) as store:
        made = ready(asked, store)
        with Study(asked.where, made.study) as one, Study(asked.where, made.study) as other:
            one.keep(KEY, {"rate.instructions": {"texts": [GOOD]}}, (3, 5))
            other.keep(KEY, {"rate.instructions": {"texts": [OTHER]}}, (4, 0))
            assert one.kept(KEY) == other.kept(KEY) == {"rate.instructions": {"texts": [GOOD]}}
            assert other.paid() == (7, 5)
            assert one.done() == []
            assert one.claim() is None
    assert {d.config["rate.instructions"] for d in run(path).done} == {None, GOOD}


# --- what is refused


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (GOOD.replace("{low}", "low"), "without {low}"),
        (GOOD.replace("{low}", "").replace("{attribute}", ""), "without {attribute}, {low}"),
        (GOOD + " {colour}", "that would not compile (a prompt has no field `{colour}`)"),
        ("  ", "empty"),
        ("\u202e\x00", "empty"),
        (f" {INSTRUCTIONS.lower()}", "said before"),
        (OTHER + "\n", "said before"),
        (GOOD + " word" * 2000, "far too long"),
    ],
)
def test_what_cannot_be_tried_is_refused_and_another_is_asked_for(
    bad: str, why: str, tmp_path: Path
) -> None:
    told = list[str]()
    with served(tmp_path, OTHER, bad, GOOD) as (path, server):
        outcome = run(path, told)
    said = "`writer` proposed 2 wordings of rate.instructions; of no use: 1 "
    assert told[1] == said + why
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, OTHER, GOOD}
    assert len(server.asked) == 3


def test_controls_are_left_out(tmp_path: Path) -> None:
    with served(tmp_path, f"\x00\x1b[1m{OTHER}\x07", f"\u202e{GOOD}") as (path, _):
        outcome = run(path)
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, f"[1m{OTHER}", GOOD}
    assert outcome.written is not None
    assert compile(outcome.written).program.deciders[0].step("rate").params["instructions"] == GOOD


def test_fewer_than_wanted_are_better_than_none(tmp_path: Path) -> None:
    told = list[str]()
    with served(tmp_path, "no", GOOD, "no", count=4) as (path, server):
        outcome = run(path, told)
        assert len(server.asked) == 4 + SPARE
        run(path)
        assert len(server.asked) == 4 + SPARE
    assert told[1].startswith("`writer` proposed 1 wording of rate.instructions; of no use: 6 ")
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, GOOD}


def test_a_wording_that_quotes_a_case_is_refused(tmp_path: Path) -> None:
    long = "a prisoner who has come a long way asks to be let go before night"
    path = world(tmp_path, GOOD, f"{OTHER} {long}")
    cases = path.parent / "cases.jsonl"
    script = tmp_path / "answers.jsonl"
    for file in (cases, script):  # all situations tell it, so every mistake that is shown does
        file.write_text(file.read_text().replace("situation ", f"{long}, situation "))
    told = list[str]()
    run(path, told)
    assert told[1].endswith("; of no use: 4 with the words of a case")


# --- what is not to be had


def test_where_nothing_can_be_tried_it_says_so_and_asks_again(tmp_path: Path) -> None:
    with served(tmp_path, "no", *["yes"] * (1 + SPARE), OTHER, GOOD) as (path, server):
        with pytest.raises(PlanError) as caught:
            run(path)
        assert str(caught.value) == (
            "error: `writer` wrote no wording that can be tried (rate.instructions: 5 without"
            " {attribute}, {definition}, {lowest}, {highest}, {low}, {high}, {anchors})\n"
            "  = the same command asks again; without it: --set optimize.propose=null"
        )
        assert kept(path) is None
        assert len({one.body for one in server.asked}) == 5  # each with a seed of its own
        outcome = run(path)
        assert len({one.body for one in server.asked}) == len(server.asked) == 7
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, OTHER, GOOD}
    judged = outcome.verdict.calls if outcome.verdict else (0, 0)
    paid = sum(d.sat.spent.paid for d in outcome.done)
    assert outcome.paid == paid + outcome.done[0].sat.spent.calls + 7 + sum(judged)


def test_without_it_the_study_goes_on(tmp_path: Path) -> None:
    with served(tmp_path, "no") as (path, _):
        with pytest.raises(PlanError):
            run(path)
        outcome = run(path, changes=Changes(sets=("optimize.propose=null",)))
    assert [d.config for d in outcome.done] == [{"shots": 0}, {"shots": 2}]


@pytest.mark.parametrize(
    ("reply", "why", "kind"),
    [
        (Reply(body=b"no", status=400), "3 refused: http", BackendError),
        (Reply(GOOD[:80], finish="length"), "3 truncated: the text was cut off", PlanError),
        (Reply(None), "5 empty", PlanError),
    ],
)
def test_an_answer_that_is_none_ends_it_before_the_first_trial(
    reply: Reply, why: str, kind: type[AlignError], tmp_path: Path
) -> None:
    with served(tmp_path, reply) as (path, server):
        with pytest.raises(kind) as caught:
            run(path)
        assert why in str(caught.value)
        assert kept(path) is None
        assert len(server.asked) == int(why[0])
        server.answer(*[reply] * (HOPELESS - 1), GOOD, OTHER)
        told = list[str]()
        outcome = run(path, told)
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, OTHER, GOOD}
    assert f"2 wordings of rate.instructions; of no use: {HOPELESS - 1} {why[2:]}" in told[1]


def test_a_server_that_goes_away_is_waited_for_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    gone = Reply(body=b"full", status=503, headers={"Retry-After": "0"})
    with served(tmp_path, OTHER, gone) as (path, server):
        with pytest.raises(
            BackendError, match=r"`writer` does not answer.*unreachable: http"
        ) as no:
            run(path)
        assert no.value.exit_code == 4
        assert kept(path) is None
        asked = len(server.asked)
        server.answer(GOOD)
        outcome = run(path)
        assert len(server.asked) == asked + 1
    assert [d.config["rate.instructions"] for d in outcome.done][1:3] != [None, None]
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, OTHER, GOOD}


def test_a_server_that_is_not_there_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with Recorder() as server:
        url = server.url
    path = world(tmp_path, writer=f"openai/tiny, endpoint: {url}/v1")
    with pytest.raises(BackendError, match="the model `writer` cannot be reached"):
        run(path)
    assert kept(path) is None


def test_who_cannot_write_is_not_asked_to(tmp_path: Path) -> None:
    path = world(tmp_path, GOOD, OTHER, writer="embedded")
    with pytest.raises(PlanError, match=r"`writer` does not\n  = name one: `propose: \{model: "):
        run(path)
    shown = invoke("explain", "--optimize", path, "--store", tmp_path / "a.db")
    assert shown.exit_code != 0
    assert "`propose` needs a model that writes" in str(shown.exception)


def test_a_model_that_reads_no_instructions_gets_none(tmp_path: Path) -> None:
    path, told = world(tmp_path, GOOD, OTHER, own="embedded"), list[str]()
    outcome = run(path, told)
    assert told == []
    assert all("rate.instructions" not in d.config for d in outcome.done)
    shown = invoke("explain", "--optimize", path, "--store", tmp_path / "a.db")
    assert "`embedded` reads no instructions: nothing is proposed" in shown.output


@pytest.mark.parametrize(("calls", "enough"), [(45, 85), (61, 86)])
def test_a_budget_that_ends_before_is_said_and_more_goes_on(
    calls: int, enough: int, tmp_path: Path
) -> None:
    with served(tmp_path, OTHER, GOOD) as (path, server):
        with pytest.raises(BudgetError, match=f"needs 40\n  = write --budget calls={enough}"):
            run(path, budget=Budget(calls))
        assert kept(path) is None
        assert len(server.asked) == calls // 61  # 40 for the verdict, 20 for the default
        outcome = run(path)
        assert len(server.asked) == 2
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, GOOD, OTHER}


def test_stopped_before_it_asks_nothing_and_goes_on(tmp_path: Path) -> None:
    path, stop = world(tmp_path, OTHER, GOOD), Stop()
    stop.now("interrupted")
    outcome = optimize(task(path), stop=stop)
    assert outcome.ended == "interrupted"
    assert outcome.done == ()
    assert kept(path) is None
    assert run(path).is_better


def test_stopped_between_two_texts_it_keeps_the_first(tmp_path: Path) -> None:
    stop = Stop()
    with served(tmp_path, GOOD) as (path, server):

        def script(asked: object) -> Reply:
            stop.now("interrupted")
            return Reply(OTHER)

        server.replies.clear()
        server.script = script
        assert optimize(task(path), stop=stop).ended == "interrupted"
        assert kept(path) is None
        server.script = lambda asked: Reply(GOOD)
        assert run(path).is_better
        assert len(server.asked) == 2


# --- over the wire


def test_what_goes_over_the_wire(tmp_path: Path) -> None:
    with served(tmp_path, OTHER, GOOD) as (path, server):
        outcome = run(path)
        assert outcome.is_better
        assert run(path, trials=9).done[0].config == outcome.done[0].config
    first, second = server.asked
    for asked in server.asked:
        assert "response_format" not in asked.json
        assert "structured_outputs" not in asked.json
        assert asked.json["temperature"] > 0
        assert asked.json["max_tokens"] >= 1024
    assert OTHER not in first.messages[1]["content"]
    assert second.messages[1]["content"].endswith(f"Other wordings that there are:\n\n1. {OTHER}")
    system, user = (m["content"] for m in first.messages)
    assert "{attribute}, {definition}, {lowest}, {highest}, {low}, {high}, {anchors}" in system
    assert f"Present instructions:\n{INSTRUCTIONS}" in user
    assert "mercy: Sparing people." in user
    assert "Low end: It does not spare." in user
    assert "order" not in user.replace(INSTRUCTIONS, "")  # no target asks for it
    assert user.count("Situation: ") == 6
    assert "the person stands as low as it can be. People rate " in user
    with Store.open(task(path).store) as store:
        made = ready(task(path), store)
        test = [c for block in made.test.blocks for c in block]
        train = [c for block in made.train.blocks for c in block]
        shown = [c for c in train if c.scenario.text in user]
        assert len(shown) == 6
        assert not any(c.scenario.text in user for c in test)
        for case in shown:
            # what is shown was decided wrongly: one in three is understood as it is
            assert int(case.scenario.id[1:]) % 3


def test_what_was_answered_is_known_whatever_became_of_the_study(tmp_path: Path) -> None:
    with served(tmp_path, OTHER, "no", GOOD) as (path, server):
        first = run(path)
        task(path).where.unlink()  # type: ignore[union-attr]  # a kill between answer and note
        second = run(path)
    assert len(server.asked) == 3
    assert [d.config for d in second.done] == [d.config for d in first.done]


# --- real models, which know nothing of any of this


@pytest.mark.parametrize("which", ["random", "trained"])
def test_whatever_a_real_model_writes_the_study_says_what_came_of_it(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights babble until their tokens are spent; the trained one knows ratings alone."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    weights = TRAINED if which == "trained" else random_model(tmp_path / "random.gguf")
    with Llama(weights) as server:
        use = f"openai/tiny, endpoint: '{server.endpoint}', temperature: 1"
        path = world(tmp_path, writer=use)
        with pytest.raises(PlanError, match=r"`writer` wrote no wording that can be tried \(rate"):
            run(path)
        assert kept(path) is None


# --- what is said before


def test_explain_tells_who_will_be_asked_and_asks_nobody(tmp_path: Path) -> None:
    with Recorder() as server:
        path = world(tmp_path, writer=f"openai/tiny, endpoint: {server.url}/v1", count=3)
        shown = invoke("explain", "--optimize", path, "--store", tmp_path / "a.db")
    assert shown.exit_code == 0, shown.output
    assert server.asked == []
    line = (
        "before the first trial `writer` is asked for 3 wordings of rate.instructions: 3 to 6 calls"
    )
    assert line in shown.output
    assert "8 configurations, 8 trials" in shown.output  # four wordings, twice


def test_the_command_and_the_page_name_them(tmp_path: Path) -> None:
    path, store = world(tmp_path, OTHER, "no"), tmp_path / ".align" / "align.db"
    ran = invoke("optimize", path, "--store", store)
    assert ran.exit_code == 0, ran.output
    assert "of no use: 4 without {attribute}" in ran.output
    shown = invoke("studies", "show", "last", "--store", store)
    assert "1 of rate.instructions by a model" in shown.output
