"""The rows of a run -> the table a person reads. Text for a terminal; no colour where none is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from align_dsl.errors import visible
from align_dsl.records.record import Result, RunRecord

if TYPE_CHECKING:
    from rich.table import Table


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def table(results: Sequence[Result], notes: Mapping[str, str] | None = None) -> Table:
    """Decider by attribute: low, high and both ends, with what an accuracy must be seen beside."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    controlled = any(r.control is not None for r in results)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    made.add_column("decider / attribute", no_wrap=True)
    columns = ["low", "high", "both", "95 % interval", "chance", "best trivial"]
    columns += ["wrong target"] if controlled else []
    for name in (*columns, "n", "left out", "failed"):
        made.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for decider, model in dict.fromkeys((r.decider, r.model) for r in results):
        mine = [r for r in results if (r.decider, r.model) == (decider, model)]
        accuracies = [r for r in mine if r.metric == "accuracy"]
        made.add_row(Text(visible(decider), style="bold"))
        on = visible((notes or {}).get(model) or model)
        made.add_row(Text(f"  {on if len(on) < 28 else '...' + on[-25:]}", style="dim"))
        if mine[0].calls:
            said = f"  {mine[0].calls:,} calls, {_short(mine[0].tokens)} tokens"
            made.add_row(Text(said, style="dim"))
        names = list(dict.fromkeys(r.attribute for r in accuracies if r.attribute != "all"))
        for name in [*names, *(["all"] if any(r.attribute == "all" for r in mine) else [])]:
            made.add_row(*_line(name, [r for r in accuracies if r.attribute == name], controlled))
        for r in mine:
            if r.metric != "accuracy":
                shown = "–" if r.value is None else f"{r.value:.3f}"
                made.add_row(f"  {visible(r.metric)} · {visible(r.target)}", "", "", shown)
        made.add_section()
    return made


def _short(count: int) -> str:
    return f"{count:,}" if count < 100_000 else f"{count / 1e6:.1f}M"


def _line(name: str, rows: Sequence[Result], controlled: bool) -> list[str]:
    low = next((r for r in rows if r.target.endswith("_low")), None)
    high = next((r for r in rows if r.target.endswith("_high")), None)
    whole = next((r for r in rows if r.target in ("both", "all")), rows[0])
    label = "  mean of attributes" if name == "all" else f"  {visible(name)}"
    trivial = f"{percent(whole.trivial)} {whole.trivial_name}" if whole.trivial is not None else "–"
    interval = f"{percent(whole.low)} – {percent(whole.high)}" if whole.low is not None else "–"
    return [
        label,
        percent(low.value) if low else "",
        percent(high.value) if high else "",
        percent(whole.value),
        interval,
        percent(whole.chance),
        trivial,
        *([percent(whole.control)] if controlled else []),
        str(whole.n),
        str(whole.left_out),
        str(whole.failed),
    ]


def caption(record: RunRecord, notes: Mapping[str, str] | None = None) -> list[str]:
    """What must be known of the numbers above, a line each."""
    lines = []
    for model, note in (notes or {}).items():
        if note:
            lines.append(visible(note if model in note else f"{model}: {note}"))
    if record.status == "interrupted":
        lines.append("not finished: the table counts only what was asked so far.")
    tied = record.counts.get("tied", 0)
    if tied:
        lines.append(
            f"{tied:,} of {sum(record.counts.values()):,} decisions were ties, broken by seed."
        )
    failed = {k: n for k, n in record.counts.items() if k not in ("ok", "tied")}
    if failed:
        kinds = ", ".join(f"{n:,} {k}" for k, n in sorted(failed.items()))
        lines.append(f"failed: {kinds}; `--retry-failed` asks them again.")
    return lines
