"""A run as files that others read, and the commands that list, show, write and remove runs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from align_dsl.commands import cli
from align_dsl.commands.runs import accuracy_range, resume_command
from align_dsl.datasets.align_system import align_system
from align_dsl.errors import AlignError
from align_dsl.records.export import COLUMNS, FORMATS
from align_dsl.records.record import Recorded
from align_dsl.records.store import Store
from align_dsl.types import Attribute, Case
from tests.records.build import case, judgement, keep, record, recorded

DESERT = Attribute(name="desert", title="Desert", about="", high="", low="")
HOSTILE = '=HYPERLINK("http://evil")\x1b[31m\u202e\ud800\x9b[bold]x[/bold],"\n'


def text(run, form):
    return "".join(FORMATS[form](run, run.judgements))


def run_with(why):
    return recorded([judgement(1, why=why), judgement(2, correct=None), judgement(1, control=True)])


def test_jsonl_has_one_line_per_decision():
    lines = [json.loads(line) for line in text(run_with("because"), "jsonl").splitlines()]
    assert [tuple(line) for line in lines] == [COLUMNS, COLUMNS]
    assert lines[0] == {
        "run": "mta-0123456789",
        "decider": "regression",
        "model": "embedded",
        "target": "desert_high",
        "scenario": "s1",
        "choice": "b",
        "index": 1,
        "weights": {"a": 0.25, "b": 0.75},
        "ratings": [
            {"choice": "a", "attribute": "desert", "value": 0.2, "why": "because", "shown": ""},
            {"choice": "b", "attribute": "desert", "value": 0.9, "why": "because", "shown": ""},
        ],
        "status": "ok",
        "why": "because",
        "correct": True,
    }
    assert lines[1]["choice"] is None
    assert lines[1]["status"] == "timeout"
    assert lines[1]["why"] == "no answer in 60 s"


@pytest.mark.parametrize("form", ["jsonl", "json", "align-system"])
def test_json_loses_no_text_and_moves_no_terminal(form):
    written = text(run_with(HOSTILE), form)
    written.encode("utf-8")
    assert not set("\x1b\u202e\ud800\x9b") & set(written)
    assert json.dumps(HOSTILE) in json.dumps(
        [json.loads(line) for line in written.splitlines()]
        if form == "jsonl"
        else json.loads(written)
    )
    assert "日本語" in text(run_with("日本語"), form)


def test_json_is_the_whole_run():
    run = run_with(HOSTILE)
    assert Recorded.model_validate(json.loads(text(run, "json"))) == run
    empty = recorded([])
    assert Recorded.model_validate(json.loads(text(empty, "json"))) == empty


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_no_csv_cell_is_a_formula(first):
    rows = list(csv.DictReader(io.StringIO(text(run_with(f"{first}1+1"), "csv"))))
    assert [row["choice"] for row in rows] == ["b", ""]
    assert rows[0]["why"].startswith("'")
    assert rows[0]["correct"] == "true"
    assert json.loads(rows[0]["weights"]) == {"a": 0.25, "b": 0.75}


def test_csv_moves_no_terminal():
    written = text(run_with(HOSTILE), "csv")
    written.encode("utf-8")
    assert not set("\x1b\u202e\ud800\x9b") & set(written)
    rows = list(csv.reader(io.StringIO(written)))
    assert [len(row) for row in rows] == [len(COLUMNS)] * 3


def test_align_system_is_read_again_as_the_same_cases(tmp_path):
    cases = [
        case(1),
        case(2, group="g"),
        case(3).model_copy(update={"labels": {"a": {"desert": 1.0}}}),
        case(4).model_copy(update={"labels": {}}),
    ]
    named = case(5, group="g")
    scenario = named.scenario.model_copy(update={"id": "g/s5"})
    cases.append(named.model_copy(update={"scenario": scenario}))
    judged = [judgement(i, target=t) for i in (1, 2, 3, 4) for t in ("desert_low", "desert_high")]
    judged.append(judgement(5, scenario="g/s5", correct=None))
    file = tmp_path / "input_output.json"
    file.write_text(text(recorded(judged, cases), "align-system"), encoding="utf-8")

    def said(one: Case):
        labels = {c.text: one.labels.get(c.id, {}) for c in one.scenario.choices}
        return one.scenario.text, labels

    read = list(align_system(file, {"desert": DESERT}))
    assert [said(c) for c in read] == [said(c) for c in cases]
    assert [c.scenario.id for c in read] == ["s1", "g/s2", "s3", "s4", "g/s5"]
    assert [c.group for c in read] == ["s1", "g", "s3", "s4", "g"]


def test_align_system_says_what_was_decided():
    first, failed = json.loads(text(run_with("because"), "align-system"))
    assert first["output"]["choice"] == 1
    assert first["output"]["action"]["justification"] == "because"
    assert first["choice_info"]["predicted_kdma_values"] == {
        "Treat A1": {"desert": [0.2]},
        "Treat B1": {"desert": [0.9]},
    }
    assert failed["output"] == {"choice": None, "action": None}


# --- commands ---


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_STORE", raising=False)
    return lambda *words, **said: CliRunner().invoke(cli, words, **said)


@pytest.fixture
def two_runs(tmp_path):
    with Store.open(tmp_path / ".align" / "align.db") as store:
        keep(store, run_with(HOSTILE))
        late = {"id": "opinions-1", "created": "2025-06-01T00:00:00+00:00", "program": "[red]x"}
        unfinished = {"status": "interrupted", "counts": {"ok": 3, "timeout": 2}}
        asked = {"selection": {"limit": 20, "only": ["a b", "c"], "control": True, "seed": None}}
        keep(store, recorded([judgement(1)], **late, **unfinished, **asked))


def test_runs_are_listed_newest_first(call, two_runs):
    for words in (["runs"], ["runs", "ls"]):
        shown = call(*words)
        assert shown.exit_code == 0
        assert shown.stdout.index("opinions-1") < shown.stdout.index("mta-0123456789")
        assert "[red]x" in shown.stdout


def test_a_run_is_shown_with_the_way_to_go_on(call, two_runs):
    shown = call("runs", "show", "last").stdout
    assert "interrupted" in shown
    assert "2 timeout" in shown
    assert "embedded: no LLM" in shown
    assert "align-dsl run programs/mta.yaml --limit 20 --only 'a b' --only c --control" in shown
    assert "go on with" not in call("runs", "show", "mta").stdout


def test_runs_are_removed_when_one_says_so(call, two_runs):
    assert call("runs", "rm", "mta", input="n\n").exit_code == 0
    assert "mta-0123456789" in call("runs").stdout
    assert call("runs", "rm", "mta", "mta-0", "--yes").exit_code == 0
    assert "mta-0123456789" not in call("runs").stdout
    assert isinstance(call("runs", "rm", "mta", "--yes").exception, AlignError)


def test_the_store_is_found_by_option_or_environment(call, two_runs, tmp_path):
    store = str(tmp_path / ".align" / "align.db")
    elsewhere = tmp_path / "elsewhere.db"
    assert "opinions-1" in call("runs", "ls", "--store", store).stdout
    assert "opinions-1" in call("runs", "--store", store).stdout
    assert call("runs", "--store", store, "ls").exit_code == 2
    assert "nothing has been run" in call("runs", env={"ALIGN_STORE": str(elsewhere)}).stderr
    for words in (["runs", "show", "last"], ["export", "last"], ["compare", "last:a", "last:b"]):
        failed = call(*words, "--store", str(elsewhere))
        assert "there is no store at" in str(failed.exception)
    assert not elsewhere.exists()


@pytest.mark.parametrize("form", list(FORMATS))
def test_export_to_stdout_and_to_a_file_agree(call, two_runs, tmp_path, form):
    printed = call("export", "mta", "--format", form)
    assert printed.exit_code == 0
    assert printed.stdout == text(run_with(HOSTILE), form)
    assert call("export", "mta", "--format", form, "-o", "out").exit_code == 0
    assert (tmp_path / "out").read_bytes() == printed.stdout_bytes
    assert sorted(p.name for p in tmp_path.iterdir()) == [".align", "out"]


def test_export_to_where_nothing_can_be_written(call, two_runs):
    failed = call("export", "mta", "-o", str(Path("no") / "such" / "folder"))
    assert "cannot write" in str(failed.exception)


def test_a_large_run_is_exported_page_by_page(call, tmp_path):
    judged = [judgement(i) for i in range(4500)]
    with Store.open(tmp_path / ".align" / "align.db") as store:
        keep(store, recorded(judged, []))
    lines = call("export", "last").stdout.splitlines()
    assert [json.loads(line)["scenario"] for line in lines] == [f"s{i}" for i in range(4500)]


def test_the_accuracy_range_takes_the_widest_row_of_each_decider():
    from tests.records.build import result

    alone = result("a", 0.1).model_copy(update={"target": "desert_low"})
    rows = (alone, result("a", 0.5), result("b", 0.875), result("c", None))
    assert accuracy_range(record(results=rows)) == "50 to 88"
    assert accuracy_range(record(results=())) == ""


def test_resuming_needs_the_store_where_it_is_not_the_usual_one():
    said = record(source="my program.yaml", selection={"set": ["a=1"]})
    assert (
        resume_command(said, Path("x.db"))
        == "align-dsl run 'my program.yaml' --set a=1 --store x.db"
    )
