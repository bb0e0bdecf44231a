"""Where results are printed: wide enough for the table when nobody's terminal sets the width."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with 1, which means a bug
            raise BrokenPipeError

    columns = shutil.get_terminal_size((140, 40)).columns
    return Piped(width=columns if sys.stdout.isatty() else max(140, columns))
