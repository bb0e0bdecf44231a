"""CPU that a trial costs when every answer is known: Optuna's share and ours.

    python benchmarks/optimize_overhead.py [trials]

One study pays for the answers (of a script that knows every label, so that nothing is pruned). Then
the journal is thrown away and the very same study is made again from the store: no model is
called, so all that is measured is overhead.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from align_dsl.engine.execute import Stop
from align_dsl.optimize.run import begin
from align_dsl.optimize.study import Study
from align_dsl.optimize.task import Task, ready
from align_dsl.optimize.workers import search_of
from align_dsl.pipeline import Changes
from align_dsl.records.store import Store

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.worlds import perfect_script, shipped  # noqa: E402

SPACE = (
    "optimize={decider: regression, trials: TRIALS, space: {shots: {low: 0, high: 80}, "
    "select: [similar, stratified, random]}}"
)


def study(task: Task) -> tuple[float, int, int, int]:
    """CPU seconds of the search alone; trials, of these pruned, and calls asked for."""
    with Store.open(task.store) as store:
        made = ready(task, store)
        made.space.program(made.space.default)
        with Study(task.where, made.study) as kept:
            begin(made, kept)
            search = search_of(made, kept, Stop())
            began = time.process_time()
            search.work()
            spent = time.process_time() - began
            done = kept.done()
        made.close()
    return spent, len(done), sum(d.pruned for d in done), sum(len(d.sat.marks) for d in done)


def main(trials: int = 200) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sets = ("data.split={train: 0.5, test: 0.5}", SPACE.replace("TRIALS", str(trials)))
        model = f"scripted:{perfect_script(shipped('mta'), Path(folder) / 'script.jsonl')}"
        changes = Changes(sets=sets, model=model)
        task = Task(ROOT / "programs" / "mta.yaml", changes, store=Path(folder) / "align.db")
        first, *_ = study(task)
        print(f"answers paid for: {first:.1f} s CPU", flush=True)
        for _ in range(2):
            assert isinstance(task.where, Path)
            task.where.unlink()
            spent, n, pruned, marks = study(task)
            print(
                f"{n} trials ({pruned} pruned, {marks:,} questions) on known answers: "
                f"{spent / n * 1000:.1f} ms CPU a trial",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
