"""The rows of a run -> the table a person reads. Text for a terminal; no colour where none is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from align_dsl.errors import counted, visible
from align_dsl.records.record import Judgement, Result, RunRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


SPARED = (
    (),
    ("best trivial",),
    ("best trivial", "low", "high"),
    ("best trivial", "low", "high", "wrong target"),
)
"""Columns that a narrow terminal does without, fewest first. What failed is never among them."""


def print_table(
    console: Console, results: Sequence[Result], notes: Mapping[str, str] | None = None
) -> None:
    """The widest table that fits. Where none does, lines are left to wrap; no number is cut."""
    wide = console.options.update(max_width=10_000)
    for spared in SPARED:
        made = table(results, notes, spared)
        needed = console.measure(made, options=wide).maximum
        if needed <= console.width:
            break
    console.width = max(needed, console.width)
    console.print(made)


def table(
    results: Sequence[Result],
    notes: Mapping[str, str] | None = None,
    spared: Sequence[str] = (),
) -> Table:
    """Decider by attribute: low, high and both ends, with what an accuracy must be seen beside."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    controlled = any(r.control is not None for r in results)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    made.add_column("decider / attribute", no_wrap=True)
    columns = ["low", "high", "both", "95 % interval", "chance", "best trivial"]
    columns += ["wrong target"] if controlled else []
    columns = [c for c in (*columns, "n", "left out", "failed") if c not in spared]
    for name in columns:
        made.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for decider, model in dict.fromkeys((r.decider, r.model) for r in results):
        mine = [r for r in results if (r.decider, r.model) == (decider, model)]
        accuracies = [r for r in mine if r.metric == "accuracy"]
        made.add_row(Text(visible(decider), style="bold"))
        note = (notes or {}).get(model, "")
        on = visible(note if 0 < len(note) < 28 else model)
        made.add_row(Text(f"  {on if len(on) < 28 else '...' + on[-25:]}", style="dim"))
        if mine[0].calls:
            said = f"  {counted(mine[0].calls, 'call')}, {_short(mine[0].tokens)}"
            made.add_row(Text(said, style="dim"))
        names = list(dict.fromkeys(r.attribute for r in accuracies if r.attribute != "all"))
        for name in [*names, *(["all"] if any(r.attribute == "all" for r in mine) else [])]:
            cells = _line(name, [r for r in accuracies if r.attribute == name])
            made.add_row(cells[""], *(cells[c] for c in columns))
        for r in mine:
            if r.metric != "accuracy":
                shown = "–" if r.value is None else f"{r.value:.3f}"
                cells = dict.fromkeys(columns, "") | {"both": shown}
                made.add_row(
                    f"  {visible(r.metric)} · {visible(r.target)}", *(cells[c] for c in columns)
                )
        made.add_section()
    return made


def _short(count: int) -> str:
    return counted(count, "token") if count < 100_000 else f"{count / 1e6:.1f}M tokens"


def _line(name: str, rows: Sequence[Result]) -> dict[str, str]:
    """The cells of a row by column; the first is that of no name."""
    low = next((r for r in rows if r.target.endswith("_low")), None)
    high = next((r for r in rows if r.target.endswith("_high")), None)
    whole = next((r for r in rows if r.target in ("both", "all")), rows[0])
    label = "  mean of attributes" if name == "all" else f"  {visible(name)}"
    trivial = f"{percent(whole.trivial)} {whole.trivial_name}" if whole.trivial is not None else "–"
    interval = f"{percent(whole.low)} – {percent(whole.high)}" if whole.low is not None else "–"
    return {
        "": label,
        "low": percent(low.value) if low else "",
        "high": percent(high.value) if high else "",
        "both": percent(whole.value),
        "95 % interval": interval,
        "chance": percent(whole.chance),
        "best trivial": trivial,
        "wrong target": percent(whole.control),
        "n": str(whole.n),
        "left out": str(whole.left_out),
        "failed": str(whole.failed),
    }


def caption(
    record: RunRecord,
    notes: Mapping[str, str] | None = None,
    reasons: Mapping[str, int] | None = None,
) -> list[str]:
    """What must be known of the numbers above, a line each. `reasons`: why decisions failed."""
    lines = []
    for model, note in (notes or {}).items():
        if note:
            lines.append(visible(note if model in note else f"{model}: {note}"))
    if record.status in ("interrupted", "failed"):
        lines.append("not finished: the table counts only what was asked so far.")
    tied = record.counts.get("tied", 0)
    if tied:
        lines.append(
            f"{tied:,} of {counted(sum(record.counts.values()), 'decision')}"
            f" {'was a tie' if tied == 1 else 'were ties'}, broken by seed."
        )
    failed = {k: n for k, n in record.counts.items() if k not in ("ok", "tied")}
    if failed:
        kinds = ", ".join(f"{n:,} {k}" for k, n in sorted(failed.items()))
        lines.append(f"failed: {kinds}; `--retry-failed` asks them again.")
        told = sorted((reasons or {}).items(), key=lambda r: (-r[1], r[0]))
        lines += [f"  {n:,} x {visible(why)[:200]}" for why, n in told[:3]]
        if len(told) > 3:
            lines.append(f"  and {counted(len(told) - 3, 'more reason')}: `align-dsl report last`")
        if failed.get("invalid"):
            lines.append("  invalid: `align-dsl doctor` tells whether the server keeps the form.")
    return lines


def reasons_of(judgements: Iterable[Judgement]) -> dict[str, int]:
    """Why decisions never came, and how many of them for each reason."""
    found: dict[str, int] = {}
    for j in judgements:
        if j.decision.choice is None and not j.control:
            why = j.decision.failures[0].message if j.decision.failures else "no choice was placed"
            found[why] = found.get(why, 0) + 1
    return found
