"""A program -> the text of a Python module: what one would have written by hand in DSPy.

What the program says becomes constants, the algorithms that are used are copied, and the wiring of
each decider becomes straight code in its `forward`. Equal programs give equal text.

module        the whole: what stands where, and what the head says
├─ constants  attributes, targets, models and instructions, as Python
├─ demos      worked examples of steps, as Python
├─ steps      the algorithms' signatures and modules, copied from their files
├─ decider    one class: its steps, and its wiring as `forward`
├─ template   what every module ends with, as text
├─ imports    the import lines
└─ literal    values and texts as Python
"""

from __future__ import annotations

from pathlib import Path

from align_dsl.emit.module import Module
from align_dsl.language.program import Program


def emit(program: Program, file: Path, written: str, filled: Program | None = None) -> str:
    """`file` is the program's; `written` is how the module shall name it.

    `filled` is the same program with its data read, for steps that have worked examples.
    """
    return Module(program, file, written, filled or program).text()
