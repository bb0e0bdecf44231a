"""DSPy's own optimizers: each runs to its end, and what it finds is judged as a program."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import align_dsl
from align_dsl import pipeline
from align_dsl.algorithms.rate_together import INSTRUCTIONS
from align_dsl.commands import cli
from align_dsl.engine.budget import Budget
from align_dsl.engine.execute import Stop
from align_dsl.engine.prompt import messages
from align_dsl.errors import BackendError, BudgetError, CompileError, PlanError
from align_dsl.optimize.looks import looks
from align_dsl.optimize.run import Outcome, optimize
from align_dsl.optimize.stock.lessons import lessons
from align_dsl.optimize.stock.memory import Memory, Remembering
from align_dsl.optimize.stock.pupil import Examples, correct, examples, pupil, told
from align_dsl.optimize.stock.wording import whole
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.records.record import Answer
from align_dsl.records.store import Store
from align_dsl.types import Failure
from tests.test_optimize import PROGRAM, kind_and_harsh
from tests.worlds import ATTRIBUTES, write_world

FAILED = Failure(status="timeout", message="too slow")
BETTER = "Look at the deeds."  # words that make the scripted model rate as the labels do


def world(folder: Path, decider: str = "comparative_regression", **changes: str) -> Path:
    """A program whose every case of three is understood, and the others after the right words."""
    program = PROGRAM.replace("{use: comparative_regression}", f"{{use: {decider}}}")
    program = program.replace(", space: {shots: [0, 1, 4, 8], select: [similar, random]}", "")
    for old, new in changes.items():
        program = program.replace(f"{old}: ", f"{old}: {new} #", 1) if old == "model" else program
    return write_world(folder, kind_and_harsh(40), program, ATTRIBUTES)


def scripted(folder: Path, decider: str = "comparative_regression", *says: str) -> Path:
    path, lines = world(folder, decider), []
    for i, case in enumerate(kind_and_harsh(40)):
        right: dict[str, int] = {c["text"]: c["labels"]["mercy"] for c in case["choices"]}  # type: ignore[attr-defined]
        first = right if i % 3 == 0 else {t: 10 - v for t, v in right.items()}
        for words, ratings in ((BETTER, right), (None, first)):
            line = {"scenario": case["scenario"], "because": "So it is.", "told": words}
            line |= {"choice": max(ratings, key=lambda t: ratings[t])} if _picks(decider) else {}
            lines.append({**line, "ratings": ratings})
    lines += [{"says": s} for s in says or (BETTER,)]
    answers = folder / "answers.jsonl"
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path.write_text(path.read_text().replace("model: embedded", f"model: scripted:{answers}"))
    return path


def _picks(decider: str) -> bool:
    return "regression" not in decider


def task(path: Path, method: str, **options: Any) -> Task:
    return Task(path, method=method, store=path.parents[1] / ".align" / "align.db", **options)


def run(path: Path, method: str, **options: Any) -> Outcome:
    return optimize(task(path, method, **options))


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(w) for w in words])


def marks(asked: Task, settings: dict[str, Any]) -> dict[tuple[str, str], bool]:
    """What the verdict saw of these settings."""
    with Store.open(asked.store) as store:
        made = ready(asked, store)
        sat = made.test.sit_all(settings)
        return {
            (a.case, a.target): m == "1" for a, m in zip(made.test.asked, sat.marks, strict=True)
        }


def decided(path: Path, store: Path) -> dict[tuple[str, str], bool]:
    """What a run of a program comes to on the test cases."""
    small = align_dsl.load(path, sets=["data.cases=test"])
    ran = small.run(only=["mine"], store=store)
    return {(j.decision.scenario, j.target): bool(j.correct) for j in ran.decisions}


# --- to the end


@pytest.mark.parametrize(("method", "trials"), [("bootstrap", 1), ("bootstrap", 4), ("mipro", 4)])
def test_demos_of_the_embedded_model(method: str, trials: int, tmp_path: Path) -> None:
    path = world(tmp_path)
    outcome = run(path, method, trials=trials)
    assert outcome.found is not None
    assert outcome.ended == "DSPy came to its end"
    assert outcome.found.settings.keys() == {"rate.demos"}
    assert outcome.is_better
    assert outcome.written is not None
    text = outcome.written.read_text()
    assert f"`method: {method}`" in text
    assert outcome.found.optimizer in text
    assert ("reads no instructions" in text) == (method == "mipro")
    seen = marks(task(path, method, trials=trials), outcome.found.settings)
    assert decided(outcome.written, tmp_path / "other.db") == seen
    assert sum(seen.values()) / len(seen) == pytest.approx(outcome.verdict.winner)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "decider"),
    [
        ("mipro", "comparative_regression"),
        ("gepa", "direct_regression"),
        ("gepa", "prompt_aligned"),
    ],
)
def test_instructions_of_a_model_that_reads_them(method: str, decider: str, tmp_path: Path) -> None:
    path = scripted(tmp_path, decider)
    outcome = run(path, method, trials=8)
    assert outcome.found is not None
    assert outcome.found.scores is not None
    step = "pick" if _picks(decider) else "rate"
    if _picks(decider):  # it picks alike for both ends, so nothing can be better
        assert not outcome.is_better
        return
    wording = outcome.found.settings[f"{step}.instructions"]
    assert wording.startswith(BETTER)
    assert "{attribute}" in wording
    assert "{definition}" in wording
    assert outcome.is_better
    assert outcome.written is not None
    seen = marks(task(path, method, trials=8), outcome.found.settings)
    assert all(seen.values())
    assert decided(outcome.written, tmp_path / "other.db") == seen
    assert BETTER in outcome.written.read_text()


def test_another_model_writes(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    writer = tmp_path / "writer.jsonl"
    writer.write_text(json.dumps({"says": f"{BETTER} Twice."}) + "\n")
    text = path.read_text().replace("trials: 8", "trials: 8, propose: {model: writer, count: 2}")
    path.write_text(f"{text}models: {{writer: {{use: 'scripted:{writer}'}}}}\n")
    outcome = run(path, "mipro")
    assert outcome.found is not None
    assert outcome.found.settings["rate.instructions"].startswith(f"{BETTER} Twice.")
    assert outcome.written is not None
    assert "instructions written by writer" in outcome.written.read_text()


def test_nothing_found_is_no_look(tmp_path: Path) -> None:
    outcome = run(scripted(tmp_path, "comparative_regression", ""), "gepa", trials=3)
    assert outcome.found is not None
    assert outcome.found.settings == {}
    assert outcome.verdict is None
    assert not (tmp_path / ".align" / "looks.jsonl").exists()


def test_what_was_optimized_before_may_stay(tmp_path: Path) -> None:
    path = world(tmp_path)
    first = run(path, "bootstrap", trials=3)
    assert first.written is not None
    again = run(first.written, "mipro", trials=3)
    assert again.found is not None
    assert again.found.scores == (1.0, 1.0)
    assert again.found.settings == {}
    assert again.verdict is None


# --- what it costs


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    first = run(path, "mipro", trials=4)
    assert first.paid > 0
    again = run(path, "mipro", trials=4)
    assert (again.found, again.verdict) == (first.found, first.verdict)
    with Store.open(tmp_path / ".align" / "align.db") as store:
        made = ready(task(path, "mipro", trials=4), store)
        with Study(made.task.where, made.study) as study:
            paid = study.paid()[0]
            study.note("found", None)  # as if it had been killed before it was written down
    once_more = run(path, "mipro", trials=4)
    assert once_more.found == first.found
    with Study(made.task.where, made.study) as study:
        assert study.paid()[0] == paid
    split = json.loads((tmp_path / ".align" / "looks.jsonl").read_text())["split"]
    assert len(looks(tmp_path / ".align" / "looks.jsonl", split)) == 1


def test_a_spent_budget_ends_it_and_more_goes_on(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    with pytest.raises(BudgetError, match="of 50 calls is too small: the verdict alone needs 40\n"):
        run(path, "gepa", trials=5, budget=Budget(50))
    short = invoke("optimize", path, "--method", "gepa", "--budget", "calls=50", "--store",
                   tmp_path / ".align" / "align.db", "--trials", 5)  # fmt: skip
    assert isinstance(short.exception, BudgetError)
    assert short.exception.exit_code == 5
    outcome = run(path, "gepa", trials=5, budget=Budget(200))
    assert outcome.is_better
    fresh = scripted(tmp_path / "fresh")
    assert run(fresh, "gepa", trials=5).paid == outcome.paid


@pytest.mark.parametrize(
    ("limits", "ended"),
    [
        ({"tokens": 1050}, "but for about 550 tokens that"),
        ({"tokens": 1051}, ""),
        ({"calls": 20}, "but for the 10 calls that"),
        ({"calls": 21}, ""),
        ({"seconds": 210}, "but for about 110 seconds that"),
        ({"seconds": 3600}, ""),
    ],
)
def test_what_the_verdict_may_need_is_kept_of_all(
    limits: dict[str, float], ended: str, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "a.db") as store:
        spent = {"calls": 10, "tokens": 500, "seconds": 100.0}
        memory = Memory(store, Stop(), limits, kept=10, before=spent)
        assert memory.is_over() == bool(ended)
        assert ended in memory.ended


def test_a_budget_that_ends_within_keeps_the_best_so_far(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    outcome = run(path, "mipro", trials=12, budget=Budget(130))
    assert "spent" in outcome.ended
    assert outcome.paid <= 130
    assert outcome.found is not None
    assert outcome.found.settings


def test_stopped_it_says_so_and_goes_on(tmp_path: Path) -> None:
    path, stop = scripted(tmp_path), Stop()

    def heard(memory: Memory) -> None:
        if memory.calls == 20:
            stop.now("interrupted")

    cut = optimize(task(path, "gepa", trials=5), stop=stop, heard=heard)
    assert (cut.ended, cut.paid, cut.verdict) == ("interrupted", 20, None)
    assert run(path, "gepa", trials=5).is_better


def test_a_model_that_is_gone_ends_it_and_is_asked_again(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    answers = tmp_path / "answers.jsonl"
    good = answers.read_text()
    gone = {"fail": "unreachable", "message": "nobody there"}
    with Store.open(tmp_path / ".align" / "align.db") as store:
        memory = Memory(store, Stop())
        for n in range(30):
            failed = Answer(key=f"k{n}", failure=FAILED, calls=1)
            memory.answer(failed.key, partial(lambda answer: answer, failed))
        assert memory.is_down
        assert memory.calls == 20
        later = Memory(store, Stop())
        assert later.answer("k1", lambda: Answer(key="k1", output=1, calls=1)).output == 1
        assert later.answer("k1", lambda: Answer(key="k1")).output == 1
    lines = ({**gone, "told": BETTER}, gone, {"says": BETTER})
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BackendError, match=r"20 answers in a row failed .*nobody there"):
        run(path, "gepa", trials=8)
    answers.write_text(good)
    assert run(path, "gepa", trials=5).is_better


def test_what_breaks_is_told_and_not_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align_dsl.engine import module

    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(module, "decide_one", broken)
    with pytest.raises(ValueError, match="a mistake of ours"):
        run(world(tmp_path), "mipro", trials=3)


# --- what is refused


def test_who_reads_nothing_is_not_reworded(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"`embedded` reads none\n  = use `method: bootstrap`"):
        run(world(tmp_path), "gepa")
    done = invoke("optimize", tmp_path / "programs" / "small.yaml", "--method", "gepa", "--store",
                  tmp_path / "a.db")  # fmt: skip
    assert isinstance(done.exception, PlanError)


def test_who_cannot_write_is_not_asked_to(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    text = path.read_text().replace("trials: 8", "trials: 8, propose: {model: embedded}")
    path.write_text(text)
    with pytest.raises(PlanError, match="needs a model that writes, and `embedded` does not"):
        run(path, "mipro")


def test_demos_of_a_test_case_are_an_error(tmp_path: Path) -> None:
    path = world(tmp_path)
    with Store.open(tmp_path / "a.db") as store:
        made = ready(task(path, "bootstrap"), store)
        tested = made.test.blocks[0][0].scenario.id
    decider = (
        "{extends: comparative_regression, steps: [{name: rate, use: rate_together, each:"
        " [attribute], takes: {demos: recall}, demos: [{case: CASE, attribute: mercy}]}]}"
    )
    text = path.read_text().replace("{use: comparative_regression}", decider)
    path.write_text(text.replace("CASE", tested))
    with pytest.raises(CompileError, match="have the same text"):
        run(path, "bootstrap")


# --- wordings


@pytest.mark.parametrize(
    ("old", "new", "made"),
    [
        ("Rate {attribute}.", "Judge {attribute} well.", "Judge {attribute} well."),
        ("Rate {attribute}.\nBe fair.", "Judge.", "Judge.\n\nRate {attribute}."),
        (
            "On {attribute}:\n{definition}",
            "Judge {attribute}.",
            "Judge {attribute}.\n\n{definition}",
        ),
        ("Rate.", "Judge {the_choice} and {x!r}.", "Judge (the_choice) and (x!r)."),
        ("Rate.", '{"because": "..."} it is', '{"because": "..."} it is'),
        ("Rate.", "  \n ", "Rate."),
        ("Rate.", "Judge\x00\u202e.", "Judge."),
    ],
)
def test_wordings_keep_what_they_must(old: str, new: str, made: str) -> None:
    assert whole(old, new) == made
    assert whole(old, made) == made


def test_a_wording_without_fields_gets_all_lines_that_have_some() -> None:
    made = whole(INSTRUCTIONS, "Be brief.")
    assert made.startswith("Be brief.\n\nAttribute: {attribute}\n{definition}\n")
    assert "{lowest}" in made
    assert "First say why" not in made


# --- lessons: the program shows what the module was taught


@pytest.mark.parametrize(
    ("decider", "settings"),
    [
        ("comparative_regression", ""),
        ("direct_regression", ""),
        ("prompt_aligned", ""),
        ("self_consistency", "positive: 1, negative: 1"),
        ("baseline", ""),
    ],
)
def test_a_program_asks_what_the_module_asked(decider: str, settings: str, tmp_path: Path) -> None:
    """Question by question, word by word; the demos are answers that the model gave itself."""
    import dspy

    path = scripted(tmp_path, decider)
    if settings:
        use = f"{{use: {decider}}}"
        path.write_text(path.read_text().replace(use, f"{use[:-1]}, with: {{{settings}}}}}"))
    with Store.open(tmp_path / "a.db") as store:
        made = ready(task(path, "bootstrap"), store)
        memory = Memory(store, Stop())
        those = examples(made, learns_from=0.4)
        logging.getLogger("dspy").setLevel(logging.CRITICAL)
        optimizer = dspy.BootstrapFewShot(metric=correct, max_labeled_demos=0, max_errors=1)
        taught = optimizer.compile(pupil(made, memory, keeps_words=True), trainset=those.train)
        demos = [d for p in taught.predictors() for d in p.demos]
        assert demos
        cases = [c for block in made.train.blocks for c in block]
        found = lessons(taught, made.space.decider, cases, made.space.checked.program.targets)
        assert not found.unsaid
        assert {n.partition(".")[2] for n in found.settings} == {"demos"}
        by_module = _asked_by(taught, made, those)
        by_program = set(_said(_plan(made, found.settings)))
        assert by_module
        assert by_module == by_program


def _plan(made: Ready, settings: dict[str, Any]) -> Any:
    from align_dsl.datasets import pool_of
    from align_dsl.engine.demos import filled
    from align_dsl.engine.plan import plan

    cases = [c for block in made.train.blocks for c in block]
    program = filled(made.space.program(settings), cases)
    return plan(program, cases, program.targets, pool_of(cases))


def _said(plan: Any) -> list[str]:
    from align_dsl.engine.preview import look

    return [repr(look(plan, "mine", plan.jobs[key]).messages) for key in plan.model_jobs]


def _asked_by(module: Any, made: Ready, those: Examples) -> set[str]:
    from align_dsl.engine.adapter import shape_of

    asked: set[str] = set()
    setting = module.setting

    class Listening:
        def __init__(self, adapter: Any) -> None:
            self.adapter = adapter

        def __call__(self, lm: Any, kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
            shape = shape_of(signature, inputs)
            asked.add(repr(messages(signature.instructions, shape, inputs, demos)))
            return self.adapter(lm, kwargs, signature, demos, inputs)

    memory = Memory(made.train.store, Stop())
    setting.between = lambda adapter: Remembering(Listening(adapter), memory, "", free=True)
    for one in [*those.train, *those.val]:
        module(**one.inputs())
    return asked


def test_feedback_says_what_was_right(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        made = ready(task(world(tmp_path), "bootstrap"), store)
        one = examples(made, learns_from=1).train[0]
        import dspy

        right = told(one, dspy.Prediction(choice=one.right[0], why=""))
        assert right.score == 1
        assert right.feedback.startswith("Right. The person stands at mercy ")
        assert one.choices[one.right[0]] in right.feedback
        none = told(one, dspy.Prediction(choice=None, why="too slow"))
        assert none.score == 0
        assert "Chosen was none (too slow)" in none.feedback


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        made = ready(task(world(tmp_path), "mipro"), store)
        those = examples(made, learns_from=0.4)
        texts = [{one.scenario for one in part} for part in (those.train, those.val)]
        assert texts[0]
        assert not texts[0] & texts[1]
        tested = {c.scenario.text for c in made.test.blocks[0]}
        assert not tested & (texts[0] | texts[1])


# --- the command


def test_the_command(tmp_path: Path) -> None:
    path, store = world(tmp_path), tmp_path / ".align" / "align.db"
    done = invoke("optimize", path, "--method", "bootstrap", "--trials", 3, "--store", store)
    assert done.exit_code == 0, done.output
    assert "bootstrap of DSPy, seed 0, 3 sets of demos" in done.output
    assert "rate.demos: " in done.output
    assert "better: written to" in done.output
    lines = invoke("optimize", path, "--method", "bootstrap", "--trials", 3, "--store", store,
                   "--json")  # fmt: skip
    events = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [e["event"] for e in events] == ["start", "done"]
    assert events[-1]["better"]
    assert events[-1]["chosen"]["rate.demos"]
    assert invoke("studies", "show", "last", "--store", store).exit_code == 0


def test_explain_tells_the_method_and_its_price(tmp_path: Path) -> None:
    path = scripted(tmp_path)
    text = path.read_text().replace("trials: 8", "trials: 8, method: mipro")
    path.write_text(text)
    done = invoke("explain", "--optimize", path, "--store", tmp_path / "a.db")
    assert "method: mipro of DSPy" in done.output
    assert "calls to decide and" in done.output
    promised = int(done.output.split("about ")[1].split(" calls")[0].replace(",", ""))
    outcome = run(path, "mipro")
    assert 0 < outcome.paid <= promised + 60
    assert pipeline.compile(path).program.optimize.method == "mipro"  # type: ignore[union-attr]
