"""Wordings that a model proposes: what it is asked, what is kept of it, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from align_dsl.algorithms.rate_together import INSTRUCTIONS
from align_dsl.commands import cli
from align_dsl.engine.execute import Stop
from align_dsl.errors import BackendError, BudgetError, PlanError
from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task, ready
from align_dsl.optimize.wordings import KEY
from align_dsl.pipeline import compile
from align_dsl.records.store import Store
from tests.servers.recorder import Recorder, Reply
from tests.test_optimize import kind_and_harsh
from tests.worlds import ATTRIBUTES, write_world

GOOD = f"Look at the deeds. {INSTRUCTIONS}"  # with it the scripted model rates as the labels do
OTHER = f"Take your time. {INSTRUCTIONS}"
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


def said(*texts: str) -> str:
    return json.dumps({KEY: texts})


def world(folder: Path, *answers: str, count: int = 2, writer: str = "", own: str = "") -> Path:
    """A decider whose model understands one case of three, and all of them after the right words.
    Who writes is a script that gives these answers, or another model."""
    path = write_world(folder, kind_and_harsh(40), PROGRAM, ATTRIBUTES)
    lines: list[dict[str, Any]] = []
    for i, case in enumerate(kind_and_harsh(40)):
        right: dict[str, int] = {c["text"]: c["labels"]["mercy"] for c in case["choices"]}  # type: ignore[attr-defined]
        first = right if i % 3 == 0 else {t: 10 - v for t, v in right.items()}
        for words, ratings in (("Look at the deeds.", right), (None, first)):
            lines.append({"scenario": case["scenario"], "told": words, "ratings": ratings})
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = [{"says": one} for one in answers]
    (folder / "writer.jsonl").write_text("".join(json.dumps(line) + "\n" for line in texts))
    text = path.read_text().replace("COUNT", str(count))
    text = text.replace("MODEL", own or f"scripted:{folder / 'answers.jsonl'}")
    path.write_text(text.replace("WRITER", writer or f"scripted:{folder / 'writer.jsonl'}"))
    return path


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
    path, told = world(tmp_path, said(OTHER, GOOD)), list[str]()
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
    path = world(tmp_path, said(OTHER, GOOD))
    outcome = run(path)
    # the default was asked to see what it gets wrong, and is not asked again as a trial
    assert outcome.done[0].sat.spent.paid == 0
    paid = sum(d.sat.spent.paid for d in outcome.done)
    judged = outcome.verdict.calls if outcome.verdict else (0, 0)
    assert outcome.paid == paid + outcome.done[0].sat.spent.calls + 1 + sum(judged)


def test_the_same_study_never_asks_twice(tmp_path: Path) -> None:
    path = world(tmp_path, said(OTHER, GOOD))
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
    alone, both = (world(tmp_path / name, said(OTHER, GOOD)) for name in "ab")
    found = [run(alone), run(both, workers=2)]
    configs = [[d.config for d in one.done] for one in found]
    assert configs[0] == configs[1]
    assert len(configs[0]) == 6


def test_they_come_beside_those_of_the_file(tmp_path: Path) -> None:
    path = world(tmp_path, said(OTHER, GOOD))
    written = json.dumps({"rate": [OTHER]})
    path.write_text(path.read_text().replace("space:", f"variants: {written}, space:"))
    told = list[str]()
    outcome = run(path, told)
    assert told[1].endswith("refused: 1 said before")
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, GOOD, OTHER}


def test_they_come_beside_those_of_the_space(tmp_path: Path) -> None:
    path = world(tmp_path, said(OTHER, GOOD))
    space = json.dumps({"rate.instructions": [OTHER]})
    path.write_text(path.read_text().replace("{shots: [0, 2]}", space))
    assert [d.config["rate.instructions"] for d in run(path).done] == [None, OTHER, GOOD]


def test_instructions_that_are_a_parameter_go_by_its_name(tmp_path: Path) -> None:
    path = world(tmp_path, said(OTHER, GOOD))
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
    path = world(tmp_path, said(OTHER, GOOD))
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
    ("texts", "why"),
    [
        ((GOOD.replace("{low}", "low"), GOOD), "1 without {low}"),
        (
            (GOOD.replace("{low}", "").replace("{attribute}", ""), GOOD),
            "without {attribute}, {low}",
        ),
        ((GOOD + " {colour}", GOOD), "1 that would not compile (a prompt has no field `{colour}`)"),
        (("  ", GOOD), "1 empty"),
        ((f" {INSTRUCTIONS.lower()}", GOOD), "1 said before"),
        ((GOOD, GOOD + "\n"), "1 said before"),
        ((GOOD + " word" * 2000, GOOD), "1 far too long"),
    ],
)
def test_what_cannot_be_tried_is_refused_and_counted(
    texts: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    path, told = world(tmp_path, said(*texts)), list[str]()
    outcome = run(path, told)
    assert why in told[1]
    assert told[1].startswith("`writer` proposed 2 wordings of rate.instructions; refused: ")
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, GOOD}


def test_a_wording_that_quotes_a_case_is_refused(tmp_path: Path) -> None:
    long = "a prisoner who has come a long way asks to be let go before night"
    path = world(tmp_path, said(f"{GOOD} {long}", GOOD))
    cases = path.parent / "cases.jsonl"
    script = tmp_path / "answers.jsonl"
    for file in (cases, script):  # all situations tell it, so every mistake that is shown does
        file.write_text(file.read_text().replace("situation ", f"{long}, situation "))
    told = list[str]()
    run(path, told)
    assert told[1].endswith("refused: 1 with the words of a case")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Here you are!", "invalid: the answer is not JSON of the form"),
        ('{"wordings": "one"}', "invalid: the answer is not JSON of the form"),
        ('{"wordings": [1, 2]}', "invalid: the answer is not JSON of the form"),
        (said(GOOD), "invalid: the answer has 1 wordings, and 2 were asked for"),
    ],
)
def test_an_answer_that_is_none_is_said_and_the_search_goes_on(
    answer: str, why: str, tmp_path: Path
) -> None:
    path, told = world(tmp_path, answer), list[str]()
    outcome = run(path, told)
    assert told[1].startswith("`writer` proposed no wording of rate.instructions (")
    assert why in told[1]
    assert told[1].endswith("the search goes on without")
    assert [d.config for d in outcome.done] == [{"shots": 0}, {"shots": 2}]


def test_who_cannot_write_is_not_asked_to(tmp_path: Path) -> None:
    path = world(tmp_path, said(GOOD, OTHER), writer="embedded")
    with pytest.raises(PlanError, match=r"`writer` does not\n  = name one: `propose: \{model: "):
        run(path)
    shown = invoke("explain", "--optimize", path, "--store", tmp_path / "a.db")
    assert shown.exit_code != 0
    assert "`propose` needs a model that writes" in str(shown.exception)


def test_a_model_that_reads_no_instructions_gets_none(tmp_path: Path) -> None:
    path, told = world(tmp_path, said(GOOD, OTHER), own="embedded"), list[str]()
    outcome = run(path, told)
    assert told == []
    assert all("rate.instructions" not in d.config for d in outcome.done)
    shown = invoke("explain", "--optimize", path, "--store", tmp_path / "a.db")
    assert "`embedded` reads no instructions: nothing is proposed" in shown.output


def test_a_budget_that_ends_before_is_said_and_more_goes_on(tmp_path: Path) -> None:
    path = world(tmp_path, said(OTHER, GOOD))
    with pytest.raises(BudgetError, match="before the default was tried"):
        run(path, budget={"calls": 45.0})
    assert kept(path) is None
    outcome = run(path)
    assert {d.config["rate.instructions"] for d in outcome.done} == {None, GOOD, OTHER}


def test_stopped_before_it_asks_nothing_and_goes_on(tmp_path: Path) -> None:
    path, stop = world(tmp_path, said(OTHER, GOOD)), Stop()
    stop.now("interrupted")
    outcome = optimize(task(path), stop=stop)
    assert outcome.ended == "interrupted"
    assert outcome.done == ()
    assert kept(path) is None
    assert run(path).is_better


# --- over the wire


def test_what_goes_over_the_wire(tmp_path: Path) -> None:
    with Recorder(lambda asked: Reply(said(OTHER, GOOD))) as server:
        path = world(tmp_path, writer=f"openai/tiny, endpoint: {server.url}/v1")
        outcome = run(path)
        assert outcome.is_better
        assert run(path, trials=9).done[0].config == outcome.done[0].config
    (asked,) = server.asked
    assert asked.schema == {
        "type": "object",
        "properties": {
            KEY: {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
        },
        "required": [KEY],
        "additionalProperties": False,
    }
    assert asked.json["temperature"] > 0
    assert asked.json["max_tokens"] >= 512
    system, user = (m["content"] for m in asked.messages)
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
    with Recorder(lambda asked: Reply(said(OTHER, GOOD))) as server:
        path = world(tmp_path, writer=f"openai/tiny, endpoint: {server.url}/v1")
        first = run(path)
        task(path).where.unlink()  # type: ignore[union-attr]  # a kill between answer and note
        second = run(path)
    assert len(server.asked) == 1
    assert [d.config for d in second.done] == [d.config for d in first.done]


def test_a_server_that_fails_is_no_end_of_the_search(tmp_path: Path) -> None:
    with Recorder(lambda asked: Reply(body=b"no", status=400)) as server:
        path, told = world(tmp_path, writer=f"openai/tiny, endpoint: {server.url}/v1"), list[str]()
        outcome = run(path, told)
    assert "proposed no wording of rate.instructions (refused: " in told[1]
    assert len(outcome.done) == 2


def test_an_answer_that_is_cut_off_is_none(tmp_path: Path) -> None:
    with Recorder(lambda asked: Reply(said(OTHER, GOOD)[:80], finish="length")) as server:
        path, told = world(tmp_path, writer=f"openai/tiny, endpoint: {server.url}/v1"), list[str]()
        run(path, told)
    assert "(truncated: the answer was cut off at the token limit" in told[1]


def test_a_server_that_is_not_there_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with Recorder() as server:
        url = server.url
    path = world(tmp_path, writer=f"openai/tiny, endpoint: {url}/v1")
    with pytest.raises(BackendError, match="the model `writer` cannot be reached"):
        run(path)
    assert kept(path) is None


# --- what is said before


def test_explain_tells_who_will_be_asked_and_asks_nobody(tmp_path: Path) -> None:
    with Recorder() as server:
        path = world(tmp_path, writer=f"openai/tiny, endpoint: {server.url}/v1", count=3)
        shown = invoke("explain", "--optimize", path, "--store", tmp_path / "a.db")
    assert shown.exit_code == 0, shown.output
    assert server.asked == []
    line = "before the first trial `writer` is asked for 3 wordings of rate.instructions: 1 call"
    assert line in shown.output
    assert "8 configurations, 8 trials" in shown.output  # four wordings, twice


def test_the_command_and_the_page_name_them(tmp_path: Path) -> None:
    path, store = world(tmp_path, said(OTHER, "no")), tmp_path / ".align" / "align.db"
    ran = invoke("optimize", path, "--store", store)
    assert ran.exit_code == 0, ran.output
    assert "refused: 1 without {attribute}" in ran.output
    shown = invoke("studies", "show", "last", "--store", store)
    assert "1 of rate.instructions by a model" in shown.output
