"""The table on terminals of any width: columns go, numbers are never cut."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from align_dsl.records.record import Result
from align_dsl.records.table import print_table


def row(target: str, attribute: str, value: float, control: float | None = None) -> Result:
    return Result(
        decider="regression",
        model="embedded",
        target=target,
        attribute=attribute,
        metric="accuracy",
        value=value,
        low=0.9,
        high=1.0,
        n=408,
        left_out=12,
        failed=34,
        chance=0.423,
        trivial=0.5,
        trivial_name="shortest",
        control=control,
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("control", [None, 0.25])
def test_no_number_is_cut(width: int, control: float | None) -> None:
    results = [
        row(f"continuing_care_{end}", "continuing_care", 1.0, control) for end in ("low", "high")
    ]
    results += [row("both", "continuing_care", 1.0, control), row("all", "all", 1.0, control)]
    out = StringIO()
    print_table(Console(file=out, width=width, color_system=None), results)
    text = out.getvalue()
    assert "…" not in text
    for shown in ("100.0", "90.0 – 100.0", "42.3", "408", "12", "34"):
        assert re.search(rf"(?<!\S){re.escape(shown)}(?!\S)", text), (width, shown)
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width
