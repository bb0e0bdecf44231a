"""What Python programs use: loading, calling a decider, runs, and the module for DSPy."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import align_dsl
from align_dsl.errors import BackendError, CompileError, PlanError
from align_dsl.language.library import shipped_folder
from align_dsl.types import Scenario, Target
from tests.servers.recorder import Recorder, Reply, obey
from tests.test_wire import program

MTA = shipped_folder() / "programs" / "mta.yaml"
DOCS = Path(__file__).parents[1] / "docs" / "python.md"
CHOICES = ["Give it to the one who is worse off.", "Give it to the one who did his duty."]

GATE = """\
version: 1
program: gate
about: <b>Who</b> goes first?
attributes:
  merit: {about: Deeds., high: Rewards deeds., low: Ignores deeds.}
  size: {about: Size., high: Big., low: Small., aliases: [bigness]}
data: {format: jsonl, path: gate.jsonl}
targets: {each: [low, high]}
deciders:
  rate: {use: comparative_regression, with: {order: given}}
  alone: {use: direct_regression}
  told: {use: prompt_aligned}
  pick: {use: baseline}
  oracle: {use: oracle}
model: scripted:answers.jsonl
metrics: [accuracy]
"""


@pytest.fixture(scope="module")
def mta() -> align_dsl.Compiled:
    return align_dsl.load(MTA)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> align_dsl.Compiled:
    """A program of four cases with scripted answers; the last of them is never answered."""
    monkeypatch.chdir(tmp_path)
    cases, answers = [], []
    for n in range(4):
        texts = [f"first, {n}", f"second, {n}"]
        cases.append(
            {
                "id": f"s{n}",
                "scenario": f"at gate {n}",
                "choices": [
                    {"id": i, "text": t, "labels": {"merit": m, "size": 10 - m}}
                    for i, t, m in zip("xy", texts, (n, 8), strict=True)
                ],
            }
        )
        line = {"scenario": f"at gate {n}", "because": "so it is"}
        if n == 3:
            answers.append({**line, "fail": "timeout", "message": "too slow"})
        answers.append({**line, "attribute": "merit", "ratings": dict(zip(texts, (2, 7)))})  # noqa: B905
        answers.append({**line, "attribute": "size", "ratings": dict(zip(texts, (9, 1)))})  # noqa: B905
        answers.append({**line, "choice": texts[1]})
    (tmp_path / "gate.jsonl").write_text("\n".join(map(json.dumps, cases)))
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (tmp_path / "gate.yaml").write_text(GATE)
    return align_dsl.load("gate.yaml")


class Engine:
    """A language model that keeps what it is asked and rates the first choice highest."""

    supports_response_schema = True
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("response_format", "temperature", "max_tokens", "seed")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def complete(self, request: Any) -> Any:
        from dspy.lm15 import Message, Response, TextPart, Usage

        self.asked.append(request)
        schema = request.config.response_format["schema"]
        labels = schema["properties"]["ratings"]["properties"]
        ratings = {label: max(0, 9 - 4 * n) for n, label in enumerate(labels)}
        said = json.dumps({"because": "they come in this order", "ratings": ratings})
        message = Message(role="assistant", parts=(TextPart(text=said),))
        usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2)
        return Response(
            id=None, model=request.model, message=message, finish_reason="stop", usage=usage
        )


@pytest.fixture
def engine() -> Iterator[Engine]:
    import dspy

    made = Engine()
    with dspy.context(lm=dspy.LM("openai/test", engine=made, cache=False)):
        yield made


# --- many threads, and the end -----------------------------------------------------------------

SCENE = ("Same scene.", ["Help.", "Wait."], {"mercy": 1})


def test_a_question_of_many_threads_is_asked_once(tmp_path: Path) -> None:
    with Recorder(lambda asked: Reply(obey(asked).content, delay=0.3)) as server:
        with align_dsl.load(program(tmp_path, server)) as loaded:
            together, got, opened = threading.Barrier(8), [], set()

            def call() -> None:
                together.wait()
                decider = loaded["rated"]
                got.append(decider(*SCENE))
                opened.add(loaded.model_for(decider.ir, None)[1])

            threads = [threading.Thread(target=call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(server.asked) == 1
    assert len(opened) == 1
    assert len(got) == 8
    assert {d.status for d in got} == {"tied"}


def test_the_end_of_a_with_closes_what_was_opened(tmp_path: Path) -> None:
    with Recorder() as server:
        with align_dsl.load(program(tmp_path, server)) as loaded:
            decider = loaded["rated"]
            assert decider(*SCENE).status == "tied"
            module = decider.module
        assert module("Another.", *SCENE[1:]).decision.failures[0].message.endswith("closed")
        assert decider("A third.", *SCENE[1:]).status == "tied"  # who asks again opens again
        loaded.close()


def test_a_script_that_closes_nothing_ends_quietly(tmp_path: Path) -> None:
    code = "import sys, align_dsl; decider = align_dsl.load(sys.argv[1])['rated']\n"
    code += f"print(decider(*{SCENE!r}).status)"
    with Recorder() as server:
        file = program(tmp_path, server)
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "tied\n", "")


# --- loading -----------------------------------------------------------------------------------


def test_importing_and_loading_import_nothing_heavy() -> None:
    code = (
        "import sys, align_dsl; heavy = {'dspy', 'litellm', 'optuna', 'numpy', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        f"align_dsl.load({str(MTA)!r})\n"
        "assert not (heavy - {'pydantic', 'numpy'}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_program_is_a_mapping_of_its_deciders(mta: align_dsl.Compiled) -> None:
    assert list(mta) == ["random", "baseline", "zero_shot", "regression", "oracle"]
    assert len(mta) == 5
    assert "regression" in mta
    assert "regresion" not in mta
    assert mta["oracle"] is mta["oracle"]
    assert mta["regression"].about.startswith("Rate all choices")
    with pytest.raises(KeyError, match="no decider named `regresion`; did you mean `regression`"):
        mta["regresion"]
    assert mta.warnings == ()
    assert mta.program.name == "mta"


def test_load_takes_what_the_command_line_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = align_dsl.load("mta", seed=7, sets=["deciders.regression.with.shots=3"])
    assert changed.program.seed == 7
    assert changed["regression"].ir.params["shots"] == 3
    other = align_dsl.load("mta", data=MTA.parent / "data" / "triage.jsonl", format="jsonl")
    assert len(other.cases) == len(changed.cases)
    with pytest.raises(PlanError, match="did you mean `mta`"):
        align_dsl.load("mtaa")
    with pytest.raises(CompileError, match=r"missing\.yaml"):
        align_dsl.load("missing.yaml")
    with pytest.raises(AttributeError):
        align_dsl.lod  # noqa: B018


# --- deciding ----------------------------------------------------------------------------------


def test_a_decider_decides(gate: align_dsl.Compiled) -> None:
    choices = ["first, 0", "second, 0"]
    decision = gate["rate"]("at gate 0", choices, {"merit": 1.0})
    assert (decision.choice, decision.status, decision.why) == ("B", "ok", "so it is")
    assert decision.weights == {"A": 0.0, "B": 1.0}
    assert [(r.choice, r.value) for r in decision.ratings] == [("A", 0.2), ("B", 0.7)]
    assert gate["rate"]("at gate 0", choices, {"merit": "low"}).choice == "A"
    assert gate["rate"]("at gate 0", choices, {"bigness": "high"}).choice == "A"
    assert gate["rate"]("at gate 0", choices, "size_low").choice == "B"
    named = {"one": "first, 0", "two": "second, 0"}
    assert gate["rate"]("at gate 0", named, Target(name="t", values={"merit": 1.0})).choice == "two"
    assert gate["rate"](gate.cases[0].scenario, target={"merit": 1}).choice == "y"
    assert gate["pick"]("at gate 0", choices).choice == "B"


def test_another_target_makes_no_call(gate: align_dsl.Compiled) -> None:
    decider = gate["rate"]
    _, backend = gate.model_for(decider.ir, None)
    asked = []
    inner = backend.adapter._find
    backend.adapter._find = lambda *given: asked.append(1) or inner(*given)
    for target in ({"merit": 1.0}, {"merit": 0.2}, {"merit": 0.0}):
        decider("at gate 0", ["first, 0", "second, 0"], target)
    assert len(asked) == 1
    decider("at gate 0", ["first, 0", "second, 0"], {"merit": 1.0, "size": 0.0})
    assert len(asked) == 2


def test_failures_are_values_and_are_asked_again(gate: align_dsl.Compiled) -> None:
    failed = gate["rate"]("at gate 3", ["first, 3", "second, 3"], {"merit": 1})
    assert (failed.choice, failed.status, failed.why) == (None, "timeout", "too slow")
    assert gate["rate"]("nowhere", ["a", "b"], {"merit": 1}).status == "refused"
    _, backend = gate.model_for(gate["rate"].ir, None)
    backend.by_scenario["at gate 3"].pop(0)
    assert gate["rate"]("at gate 3", ["first, 3", "second, 3"], {"merit": 1}).choice == "B"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"merits": 1.0}, "no attribute named `merits`; did you mean `merit`?"),
        ({"merit": 1.2}, "`merit` is 1.2; a target lies from 0 to 1"),
        ({"merit": "highest"}, "`merit` is 'highest'"),
        ({"merit": True}, "`merit` is True"),
        ({}, "`rate` needs a target on one of: merit, size"),
        (None, "`rate` needs a target"),
        ("merit_hihg", "no target named `merit_hihg`; did you mean `merit_high`?"),
    ],
)
def test_wrong_targets(target: Any, said: str, gate: align_dsl.Compiled) -> None:
    with pytest.raises(PlanError, match=re.escape(said)):
        gate["rate"]("at gate 0", ["a", "b"], target)
    with pytest.raises(PlanError, match=re.escape(said)):
        gate["rate"].module(scenario="at gate 0", choices=["a", "b"], target=target)


def test_what_cannot_be_decided(gate: align_dsl.Compiled) -> None:
    with pytest.raises(PlanError, match="`oracle` decides from labels"):
        gate["oracle"]("at gate 0", ["a", "b"], {"merit": 1})
    with pytest.raises(PlanError, match="offers no choices"):
        gate["rate"]("at gate 0", [], {"merit": 1})


def test_another_model_for_one_call(gate: align_dsl.Compiled) -> None:
    choices = ["first, 0", "second, 0"]
    decision = gate["rate"]("at gate 0", choices, {"merit": 1}, model="embedded")
    assert (decision.model, decision.status) == ("embedded", "tied")
    with pytest.raises(CompileError, match="no model named `embeded`"):
        gate["rate"]("at gate 0", choices, {"merit": 1}, model="embeded")
    gate.close()
    assert gate["rate"]("at gate 0", choices, {"merit": 1}).choice == "B"


def test_a_decider_and_its_module_decide_as_a_run_does(
    mta: align_dsl.Compiled, tmp_path: Path
) -> None:
    run = mta.run(limit=8, only=["baseline", "regression"], store=tmp_path / "align.db")
    by_id = {c.scenario.id: c.scenario for c in mta.cases}
    assert len(run.decisions) > 16
    for decision in (j.decision for j in run.decisions):
        scenario = by_id[decision.scenario]
        assert mta[decision.decider](scenario, target=decision.target) == decision
        said = mta[decision.decider].module(scenario=scenario, target=decision.target)
        assert (said.choice, said.status) == (decision.choice, decision.status)
        assert said.decision == decision


# --- runs --------------------------------------------------------------------------------------


def test_run(gate: align_dsl.Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gate.run(only=["rate", "oracle"])
    assert Path(".align/align.db").exists()
    assert run.record.status == "ok"
    assert {r.decider for r in run.results} == {"rate", "oracle"}
    assert len(run.decisions) == 2 * 4 * 4
    assert gate.run(only=["rate", "oracle"]).spent.calls <= 2  # the two failures
    table = str(run)
    assert "scripted" in table
    assert all(name in table for name in ("rate", "oracle", "merit", "failed"))
    assert "\x1b" not in table
    assert repr(run).startswith(f"<run {run.record.id}: ok")
    html = run._repr_html_()
    assert html.count("<tr>") == 1 + len(run.results)
    monkeypatch.setitem(run.notes, run.record.results[0].model, "<script>\u202e")
    assert "<script>" not in run._repr_html_()
    assert "&lt;script&gt;" in run._repr_html_()


def test_a_spent_budget_interrupts(gate: align_dsl.Compiled) -> None:
    run = gate.run(only=["rate"], budget=1)
    assert run.record.status == "interrupted"
    assert gate.run(only=["rate"]).record.status == "ok"


def test_to_pandas(gate: align_dsl.Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gate.run(only=["rate"], control=True)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        run.to_pandas()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    frame = run.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(run.decisions) == 16
    assert list(frame.columns[:5]) == ["run", "decider", "model", "target", "scenario"]
    first = frame[(frame.scenario == "s0") & (frame.target == "merit_high")].iloc[0]
    assert first.ratings == {"x": {"merit": 0.2}, "y": {"merit": 0.7}}


# --- the module and DSPy -----------------------------------------------------------------------


def test_the_module_is_what_dspy_expects(gate: align_dsl.Compiled, tmp_path: Path) -> None:
    import dspy

    module = gate["rate"].module
    assert isinstance(module, dspy.Module)
    assert set(module.steps) == {"recall", "rate"}
    assert [n for n, _ in module.named_predictors()] == ["steps['rate'].rate"]
    said = module(scenario="at gate 1", choices=["first, 1", "second, 1"], target={"merit": 1})
    assert isinstance(said, dspy.Prediction)
    assert (said.choice, said.weights) == ("B", {"A": 0.0, "B": 1.0})
    copy = module.deepcopy()
    assert copy.steps["rate"] is not module.steps["rate"]
    copy.score = 0.5  # as MIPROv2 does
    copy.save(tmp_path / "module.json")
    gate["rate"].module.deepcopy().load(tmp_path / "module.json")


def test_the_callers_lm_is_asked_what_the_module_says(
    mta: align_dsl.Compiled, engine: Engine
) -> None:
    module = mta["regression"].module.deepcopy()
    case = mta.cases[0]
    ask = {"scenario": case.scenario, "target": {"fairness": 1.0}}
    said = module(**ask)
    assert said.status in ("ok", "tied")
    before, n = engine.asked[0], len(engine.asked)
    assert "Attribute: fairness" in before.system
    assert before.config.response_format["schema"]["properties"]["ratings"]
    assert len(before.messages) == 2 * 20 + 1
    rate = module.steps["rate"].rate
    rate.signature = rate.signature.with_instructions("Be brief about {attribute}.")
    rate.demos = [e for e in mta.examples() if e.scenario != case.scenario.text][:3]
    module(**ask)
    after = engine.asked[n]
    assert after.system.startswith("Be brief about fairness.")
    labelled = [e for e in rate.demos if any("fairness" in by for by in e.labelled.values())]
    assert len(after.messages) == 2 * (20 + len(labelled)) + 1
    assert after.messages[-1] == before.messages[-1]
    mta["regression"].module(**ask)
    assert engine.asked[2 * n].system == before.system


def test_demos_are_fitted_to_the_question(mta: align_dsl.Compiled, engine: Engine) -> None:
    module = mta["zero_shot"].module.deepcopy()
    fair = next(c for c in mta.cases if "fairness" in c.attributes())
    other = next(c for c in mta.cases if "fairness" not in c.attributes())
    ask = {"scenario": fair.scenario, "target": {"fairness": 1.0}}
    module.steps["rate"].rate.demos = mta.examples([fair, other])
    module(**ask)
    assert len(engine.asked[0].messages) == 1  # neither its own text nor another attribute
    module.steps["rate"].rate.demos = [{"scenario": "a", "choices": ["b"], "choice": "A"}]
    with pytest.raises(PlanError, match=r"make them with `examples\(\)`"):
        module(**ask)
    module.steps["rate"].rate.demos = [{"because": "x"}]
    with pytest.raises(PlanError, match="lacks scenario, attribute, ratings"):
        module(**ask)


def test_examples_show_labels_to_nobody(mta: align_dsl.Compiled) -> None:
    examples = mta.examples(mta.cases[:6])
    assert examples
    for one in examples:
        assert set(one.inputs().keys()) == {"scenario", "choices", "target"}
        assert one.choice in one.right
        assert align_dsl.correct(one, one)


@pytest.mark.parametrize("decider", ["rate", "alone", "told", "pick"])
def test_labelled_examples_teach_every_kind_of_step(decider: str, gate: align_dsl.Compiled) -> None:
    from dspy.teleprompt import LabeledFewShot

    embedded = align_dsl.load("gate.yaml", model="embedded")
    examples = embedded.examples(embedded.cases[1:])
    taught = LabeledFewShot(k=6).compile(embedded[decider].module, trainset=examples)
    said = taught(scenario=embedded.cases[0].scenario, target={"merit": 1.0})
    assert said.decision.votes or said.decision.ratings
    scripted = LabeledFewShot(k=6).compile(gate[decider].module, trainset=examples)
    assert scripted(scenario=gate.cases[0].scenario, target={"merit": 1.0}).choice == "y"


def test_optimizers_of_exemplars_run_to_the_end(
    mta: align_dsl.Compiled, gate: align_dsl.Compiled
) -> None:
    from dspy.teleprompt import BootstrapFewShot, BootstrapFewShotWithRandomSearch

    for loaded, name in ((mta, "zero_shot"), (gate, "rate"), (gate, "told")):
        examples = loaded.examples(loaded.cases[:6])
        module = loaded[name].module
        optimizer = BootstrapFewShot(
            metric=align_dsl.correct, max_bootstrapped_demos=2, max_labeled_demos=4
        )
        taught = optimizer.compile(module, trainset=examples)
        demos = taught.predictors()[0].demos
        assert any(isinstance(d.get("scenario"), Scenario) for d in demos)
        assert not module.predictors()[0].demos
        state = json.loads(json.dumps(taught.dump_state()))
        again = module.deepcopy()
        again.load_state(state)
        for one in examples[:4]:
            assert again(**one.inputs()).choice == taught(**one.inputs()).choice
    searched = BootstrapFewShotWithRandomSearch(
        metric=align_dsl.correct, num_candidate_programs=1, num_threads=1
    ).compile(mta["zero_shot"].module, trainset=mta.examples(mta.cases[:4]))
    assert searched.predictors()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("which", ["embedded", "scripted"])
def test_optimizers_of_wording_are_refused_where_no_wording_is_read(
    which: str, own: bool, mta: align_dsl.Compiled, gate: align_dsl.Compiled
) -> None:
    """Whether the proposals come from the program's own model, or from a real one."""
    import dspy
    from dspy.teleprompt import COPRO, GEPA, SIMBA, MIPROv2
    from dspy.utils import DummyLM

    logging.disable(logging.CRITICAL)
    loaded, name = (mta, "zero_shot") if which == "embedded" else (gate, "rate")
    decider, examples = loaded[name], loaded.examples(loaded.cases[:3])
    said = {"proposed_instruction": "Be wild.", "proposed_prefix_for_output_field": "x"}
    refusal = r"reads no instructions|no language model|answers typed questions only"
    proposer = decider.lm if own else DummyLM([said] * 100)
    metric = align_dsl.correct

    def feedback(gold: Any, said: Any, *_: Any, **__: Any) -> Any:
        return dspy.Prediction(score=float(metric(gold, said)), feedback="")

    trials = [
        lambda: COPRO(metric=metric, prompt_model=proposer, breadth=2, depth=1).compile(
            decider.module, trainset=examples, eval_kwargs={"display_progress": False}
        ),
        lambda: MIPROv2(
            metric=metric,
            auto=None,
            num_candidates=2,
            prompt_model=proposer,
            task_model=decider.lm,
        ).compile(
            decider.module,
            trainset=examples,
            num_trials=3,
            minibatch=False,
            program_aware_proposer=False,
            data_aware_proposer=False,
            tip_aware_proposer=False,
        ),
        lambda: GEPA(metric=feedback, max_metric_calls=10, reflection_lm=proposer).compile(
            decider.module, trainset=examples, valset=examples
        ),
        lambda: SIMBA(
            metric=metric, bsize=2, max_steps=1, num_candidates=2, prompt_model=proposer
        ).compile(decider.module, trainset=examples),
    ]
    try:
        for trial in trials:
            with pytest.raises((PlanError, BackendError, dspy.LMError), match=refusal):
                trial()
    finally:
        logging.disable(logging.NOTSET)


def test_optimizers_of_wording_work_on_a_language_model(
    mta: align_dsl.Compiled, engine: Engine
) -> None:
    from dspy.teleprompt import COPRO
    from dspy.utils import DummyLM

    said = {"proposed_instruction": "Rate on {attribute}.", "proposed_prefix_for_output_field": "x"}
    optimizer = COPRO(
        metric=align_dsl.correct, prompt_model=DummyLM([said] * 10), breadth=2, depth=1
    )
    examples = mta.examples(mta.cases[:3])
    optimizer.compile(
        mta["zero_shot"].module, trainset=examples, eval_kwargs={"display_progress": False}
    )
    assert any(r.system.startswith("Rate on ") for r in engine.asked)
    assert mta["zero_shot"].module(**examples[0].inputs()).status in ("ok", "tied")


# --- the page ----------------------------------------------------------------------------------


def test_every_snippet_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align_dsl.commands import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("programs", "attributes"):
        shutil.copytree(shipped_folder() / name, tmp_path / name)
    text = DOCS.read_text(encoding="utf-8")
    space: dict[str, Any] = {"print": lambda *said: None}
    blocks = re.findall(r"```(python|console)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 8
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(DOCS), "exec"), space)
            continue
        for line in block.splitlines():
            done = CliRunner().invoke(cli, line.removeprefix("$ align-dsl ").split())
            assert done.exit_code == 0, done.output
