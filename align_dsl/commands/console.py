"""Where results are printed: wide enough for the table when nobody's terminal sets the width."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    from rich.console import Console

    columns = shutil.get_terminal_size((140, 40)).columns
    return Console(width=columns if sys.stdout.isatty() else max(140, columns))
