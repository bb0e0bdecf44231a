"""How many calls until the best configuration is found? Three problems with a known answer.

A scripted model rates the right choice higher with a probability that depends on the prompt in a
known way: on its wording, the number of worked examples, the order of choices. So it is known
which configuration is best, and how good each is on cases without end.

separable    8 wordings and 0 to 4 shots add up; how exemplars are picked does nothing
interaction  one wording of 6 helps, but with 4 shots and choices in both orders only
needle       one wording of 12 is good; shots, how they are picked and all other wordings do nothing

    python benchmarks/optimize_needed.py                 10 seeds
    python benchmarks/optimize_needed.py 3 1             fewer, and of MIPROv2 one
    python benchmarks/optimize_needed.py 10 10 docs/needed.svg     and the picture of it

After each trial it is asked what would be chosen now, and how good that truly is; paid is each
answer that was not known. MIPROv2 sets wordings and demos, and nothing else. So it is held against
the search where those are all that varies, and `order` is as it is best. Its writer
writes all the wordings that there are; these calls do not count.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from pathlib import Path
from statistics import NormalDist, fmean, median
from typing import Any

import dspy.teleprompt.mipro_optimizer_v2 as dspy_mipro

from align_dsl.backends.scripted import scripted
from align_dsl.engine.adapter import TRAIL, Trail
from align_dsl.engine.execute import Stop
from align_dsl.optimize.choose import choose
from align_dsl.optimize.run import begin
from align_dsl.optimize.stock.learn import learn
from align_dsl.optimize.stock.memory import Memory
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Ready, Task, ready
from align_dsl.optimize.untried import every
from align_dsl.optimize.workers import search_of
from align_dsl.records.store import Store
from align_dsl.types import LabelledNumbers, digest

NORMAL = NormalDist()
CASES = 160  # of which half are to train on
TRIALS = 40
NEAR = 0.005  # what is so near to the best is as good
BIAS = 3.0  # how far a model leans to what stands first, in the problem where order matters
RIGHT, WRONG = "the right thing", "the wrong thing"
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1)
Point = tuple[int, float]  # calls paid, true accuracy of what would be chosen


@dataclass(frozen=True)
class Problem:
    name: str
    wordings: int
    space: Mapping[str, Sequence[Any]]
    good: Callable[[int, int], float]  # wording, shots -> how often it is right
    bias: float = 0.0
    file: str = ""  # what the file says besides
    part: str = ", select: random"  # and where only wordings and shots vary

    def truth(self, wording: int, shots: int, order: str) -> float:
        """How often a configuration is right, on cases without end."""
        margin = NORMAL.inv_cdf(self.good(wording, shots))
        if order == "both":  # what stands first once stands last once
            return NORMAL.cdf(margin)
        return (NORMAL.cdf(margin + self.bias) + NORMAL.cdf(margin - self.bias)) / 2


WORDS = (0, 0.02, 0.03, 0.05, 0.06, 0.08, 0.09, 0.13)


def separable(wording: int, shots: int) -> float:
    return 0.58 + WORDS[wording] + 0.03 * shots


def interaction(wording: int, shots: int) -> float:
    return 0.9 if (wording, shots) == (4, 4) else 0.66


def needle(wording: int, shots: int) -> float:
    return 0.85 if wording == 7 else 0.62


PROBLEMS = (
    Problem(
        "separable",
        8,
        {"shots": [0, 1, 2, 3, 4], "select": ["similar", "diverse", "random"]},
        separable,
    ),
    Problem(
        "interaction",
        6,
        {"shots": [0, 2, 4], "order": ["given", "shuffle", "both"]},
        interaction,
        bias=BIAS,
        file=", select: random",
        part=", select: random, order: both",
    ),
    Problem(
        "needle",
        12,
        {"shots": [0, 2, 4], "select": ["similar", "diverse", "random"]},
        needle,
    ),
)
PROGRAM = """version: 1
program: known
about: A model whose answers depend on the prompt in a known way.
attributes: {{mercy: {{about: Sparing people., high: It spares., low: It does not.}}}}
data: {{format: jsonl, path: cases.jsonl, split: {{train: 0.5, test: 0.5, seed: {seed}}}}}
targets: {{each: [low, high]}}
deciders:
  mine: {{use: comparative_regression, with: {{shots: 0{settings}}}}}
model: "scripted:{script}"
optimize:
  decider: mine
  seed: {seed}
  trials: {trials}
  space: {space}
  {words}
"""


class Known(scripted):
    """A scripted model that reads how it is asked."""

    def __init__(self, model: Any, problem: Problem) -> None:
        super().__init__(model)
        self.problem, self.asked = problem, 0

    reads_words = writes = True

    def __call__(
        self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        (TRAIL.get() or Trail()).calls += 1
        scenario = inputs["scenario"]
        wording, shots = wording_of(signature.instructions), min(4, len(demos))
        margin = NORMAL.inv_cdf(self.problem.good(wording, shots)) - luck(
            scenario.text, f"{wording} {shots}"
        )
        first = scenario.choices[0].text == RIGHT
        margin += self.problem.bias if first else -self.problem.bias
        apart = 0.6 * margin  # so that both orders together cancel what stands first
        rated = {c.id: 5 + (apart if c.text == RIGHT else -apart) for c in scenario.choices}
        said = {i: min(10.0, max(0.0, number)) for i, number in rated.items()}
        if scenario.text.endswith("spare."):  # else the right thing is the harsh one
            return [{"because": "So.", "ratings": LabelledNumbers(said)}]
        return [
            {"because": "So.", "ratings": LabelledNumbers({i: 10 - n for i, n in said.items()})}
        ]

    def text(self, question: str, seed: int | None) -> str:
        """Every wording in turn, where one is asked for."""
        if "generate a new instruction" not in question:
            return "Nothing to be said."
        self.asked += 1
        return worded((self.asked - 1) % (self.problem.wordings - 1) + 1)


@lru_cache(maxsize=200_000)
def luck(text: str, asked: str) -> float:
    """How hard a case is for a prompt: half of it is the case's own."""
    own, with_prompt = (_normal(text), _normal(f"{text} {asked}"))
    return (own + with_prompt) / 2**0.5


def _normal(text: str) -> float:
    return NORMAL.inv_cdf((int(digest(text)[:12], 16) + 0.5) / 16**12)


def worded(n: int) -> str:
    return f"Wording {n}. Rate {{attribute}}: {{definition}} {{lowest}} to {{highest}}."


def wording_of(instructions: str) -> int:
    found = re.search(r"Wording (\d+)", instructions)
    return int(found.group(1)) if found else 0


def world(folder: Path, problem: Problem, seed: int, *, part: bool, method: str) -> Path:
    """A project with this problem. In `part` only wordings and shots vary."""
    dice, lines = random.Random(f"{problem.name} {seed}"), []
    for i in range(CASES):
        kind = dice.random() < 0.5  # whether the right thing is the merciful one
        text = f"Case {i} of {dice.randrange(10**9)}. It is right to {'spare' if kind else 'act'}."
        high, low = (9, 1) if kind else (1, 9)
        choices = [(RIGHT, high), (WRONG, low)]
        dice.shuffle(choices)
        rows = [
            {"id": f"x{n}", "text": t, "labels": {"mercy": v}} for n, (t, v) in enumerate(choices)
        ]
        lines.append(json.dumps({"id": f"c{i}", "scenario": text, "choices": rows}))
    (folder / "cases.jsonl").write_text("\n".join(lines) + "\n")
    script = folder / "answers.jsonl"
    script.write_text('{"says": "-"}\n')
    space = {k: v for k, v in problem.space.items() if not part or k == "shots"}
    texts = [worded(n) for n in range(1, problem.wordings)]
    words = f"variants: {json.dumps({'rate': texts})}"
    if method == "mipro":
        model = json.dumps(f"scripted:{script}")
        words = f"method: mipro\n  propose: {{model: {model}, count: {problem.wordings - 1}}}"
    path = folder / "known.yaml"
    path.write_text(
        PROGRAM.format(
            seed=seed,
            settings=problem.part if part else problem.file,
            script=script,
            trials=TRIALS,
            space=json.dumps(space),
            words=words,
        )
    )
    return path


def with_known(made: Ready, problem: Problem) -> Ready:
    ((name, model),) = [(m.name, m) for m in made.loaded.program.models]
    backends = {name: Known(model, problem)}
    train, test = (replace(exam, backends=backends) for exam in (made.train, made.test))
    return replace(made, backends=backends, train=train, test=test)


def searched(
    problem: Problem, seed: int, sampler: str, *, part: bool
) -> tuple[list[Point], float, int]:
    """What our search would choose after each trial; the best, and what it costs to try all."""
    with tempfile.TemporaryDirectory() as folder:
        path = world(Path(folder), problem, seed, part=part, method="search")
        task = Task(path, store=Path(folder) / "a.db", sampler=sampler)
        with Store.open(task.store) as store:
            made = with_known(ready(task, store), problem)

            def truth(config: Mapping[str, Any]) -> float:
                values = {**made.space.now, **config}
                words = wording_of(values.get("rate.instructions") or "")
                return problem.truth(words, values["shots"], values["order"])

            configs = list(every(made.space).values())
            best = max(map(truth, configs))
            asked = made.train.asked
            orders = [({**made.space.now, **c})["order"] for c in configs]
            size = sum(2 if o == "both" else 1 for o in orders) * len({a.case for a in asked})
            with Study(task.where, made.study) as study:
                begin(made, study)
                search_of(made, study, Stop()).work()
                done = study.done()
            points, paid = [], 0
            for n, one in enumerate(done, start=1):
                paid += one.sat.spent.paid
                chosen = choose(made.train, made.space, done[:n]).done.config
                points.append((paid, truth(chosen)))
            return points, best, size


def of_mipro(problem: Problem, seed: int) -> list[Point]:
    """The same of MIPROv2: what it would return, after each time it has looked at all examples."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        path = world(Path(folder), problem, seed, part=True, method="mipro")
        task = Task(path, store=Path(folder) / "a.db")
        with Store.open(task.store) as store:
            made = with_known(ready(task, store), problem)
            (backend,) = made.backends.values()
            memory, best = Memory(store, Stop()), [-1.0]
            order = made.space.decider.step("rate").order
            real = dspy_mipro.eval_candidate_program

            def watched(size: int, examples: Any, program: Any, *args: Any, **more: Any) -> Any:
                score = real(size, examples, program, *args, **more)
                if size >= len(examples):
                    if float(score.score) > best[0]:
                        best[0] = float(score.score)
                        (predictor,) = program.predictors()
                        words = wording_of(predictor.signature.instructions)
                        now = problem.truth(words, min(4, len(predictor.demos)), order)
                    else:
                        now = points[-1][1]
                    points.append((memory.calls - backend.asked, now))  # type: ignore[attr-defined]
                return score

            dspy_mipro.eval_candidate_program = watched
            try:
                learn(made, memory)
            finally:
                dspy_mipro.eval_candidate_program = real
    return points


# --- what came of it ------------------------------------------------------------------------------


def needed(points: Sequence[Point], best: float) -> int | None:
    """Calls after which what would be chosen is as good as the best."""
    return next((paid for paid, truth in points if truth >= best - NEAR), None)


def at(points: Sequence[Point], calls: float) -> float | None:
    """How good what would be chosen is, after so many calls; None before there is anything."""
    return next((truth for paid, truth in reversed(points) if paid <= calls), None)


@dataclass(frozen=True)
class Curve:
    who: str
    runs: Sequence[Sequence[Point]]

    def mean(self, calls: float) -> float | None:
        """Over all seeds; a run that has ended stays where it was."""
        found = [at(run, calls) for run in self.runs]
        return None if None in found else fmean(x for x in found if x is not None)

    def row(self, best: float) -> str:
        reached = [needed(run, best) for run in self.runs]
        n = sum(one is not None for one in reached)
        half = median(one if one is not None else inf for one in reached)
        spent, last = (fmean(run[-1][k] for run in self.runs) for k in (0, 1))
        said = "never" if half == inf else f"{half:,.0f}"
        return f"  {self.who:<18}{n:>2} of {len(self.runs):<6}{said:>8}{spent:>12,.0f}{last:>14.3f}"


@dataclass(frozen=True)
class Panel:
    """One comparison: of all settings, or of those that MIPROv2 can set."""

    problem: str
    what: str
    best: float
    size: int  # calls of an exhaustive search
    curves: Sequence[Curve]

    @property
    def end(self) -> int:
        return max(run[-1][0] for one in self.curves for run in one.runs)


def compared(problem: Problem, seeds: int, fewer: int, work: Executor) -> Iterator[Panel]:
    for part in (False, True):
        runs = [
            [work.submit(searched, problem, seed, sampler, part=part) for seed in range(seeds)]
            for sampler in ("tpe", "random")
        ]
        theirs = [work.submit(of_mipro, problem, seed) for seed in range(fewer if part else 0)]
        found = [[one.result() for one in some] for some in runs]
        names = ("align-dsl (tpe)", "random search")
        made = [Curve(n, [points for points, *_ in r]) for n, r in zip(names, found, strict=True)]
        if theirs:
            made.append(Curve("MIPROv2", [one.result() for one in theirs]))
        _, best, size = found[0][0]
        yield Panel(
            problem.name, "wordings and shots" if part else "all settings", best, size, made
        )


def told(panel: Panel) -> Iterator[str]:
    yield (
        f"{panel.problem}, {panel.what}: the best is right in {panel.best:.3f};"
        f" to try all is {panel.size:,} calls"
    )
    yield f"  {'':<18}{'found':<12}{'calls, median':<17}of      at the end"
    yield from (one.row(panel.best) for one in panel.curves)
    yield "  after calls       " + "  ".join(f"{s * panel.end:>6,.0f}" for s in SHARES)
    for one in panel.curves:
        means = [one.mean(s * panel.end) for s in SHARES]
        yield f"  {one.who:<18}" + "  ".join(f"{m:6.3f}" if m else f"{'':6}" for m in means)
    yield ""


# --- the picture ----------------------------------------------------------------------------------

WIDE, HIGH, GAP, LEFT, TOP = 250, 170, 10, 34, 58
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600 }
.grid { stroke: #ddd }
.best { stroke: #333; stroke-dasharray: 2 3 }
path { fill: none; stroke-width: 2 }
.c0 { stroke: #0a6c58 } .c1 { stroke: #8a8a8a; stroke-dasharray: 6 3 }
.c2 { stroke: #b4530a; stroke-dasharray: 2 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .grid { stroke: #444 } .best { stroke: #ddd }
  .c0 { stroke: #4fd1b3 } .c1 { stroke: #a0a0a0 } .c2 { stroke: #f0a060 }
}
"""


def drawn(panels: Sequence[Panel]) -> str:
    """The mean accuracy of what would be chosen, by calls. All settings above, a part below."""
    columns = list(dict.fromkeys(p.problem for p in panels))
    width, height = GAP + len(columns) * (WIDE + GAP), TOP + 2 * HIGH + 40
    low, high = 0.5, 0.95
    parts = []
    who = list(dict.fromkeys(c.who for p in panels for c in p.curves))
    for i, name in enumerate(who):
        x = LEFT + 10 + 190 * i
        parts.append(f'<path class="c{i}" d="M{x} 16h28"/><text x="{x + 34}" y="20">{name}</text>')
    x = LEFT + 10 + 190 * len(who)
    parts.append(f'<path class="best" d="M{x} 16h28"/><text x="{x + 34}" y="20">the best</text>')
    for panel in panels:
        left = GAP + columns.index(panel.problem) * (WIDE + GAP) + LEFT
        top = TOP + (panel.what != panels[0].what) * (HIGH + 50)
        right, bottom = left + WIDE - LEFT - 14, top + HIGH - 30

        def x_of(calls: float, left: int = left, right: int = right, panel: Panel = panel) -> float:
            return left + (right - left) * calls / panel.end

        def y_of(share: float, top: int = top, bottom: int = bottom) -> float:
            return bottom - (bottom - top) * (share - low) / (high - low)

        title = f"{panel.problem}: {panel.what}"
        parts.append(f'<text class="title" x="{left}" y="{top - 8}">{title}</text>')
        for share in (0.5, 0.6, 0.7, 0.8, 0.9):
            y = y_of(share)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            said = f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
            parts.append(said)
        for calls in range(0, panel.end, 1000):
            place = f'x="{x_of(calls):.1f}" y="{bottom + 15}"'
            parts.append(f'<text {place} text-anchor="middle">{calls:,}</text>')
        y = y_of(panel.best)
        parts.append(f'<path class="best" d="M{left} {y:.1f}H{right}"/>')
        for one in panel.curves:
            steps = [(c, one.mean(c)) for c in range(0, panel.end + 1, max(1, panel.end // 100))]
            known = [(c, m) for c, m in steps if m is not None]
            line = "L".join(f"{x_of(c):.1f} {y_of(m):.1f}" for c, m in known)
            parts.append(f'<path class="c{who.index(one.who)}" d="M{line}"/>')
    said = "Accuracy of what would be chosen, by calls paid: means over seeds, in six charts"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>{said}</title>\n<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def main(seeds: int = 10, fewer: int = 10, picture: str = "") -> None:
    panels = []
    with ProcessPoolExecutor(
        os.process_cpu_count() if hasattr(os, "process_cpu_count") else 2
    ) as work:
        for problem in PROBLEMS:
            for panel in compared(problem, seeds, fewer, work):
                print("\n".join(told(panel)), flush=True)
                panels.append(panel)
    if picture:
        Path(picture).write_text(drawn(panels))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
