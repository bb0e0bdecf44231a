"""The command line: one small file per command; parse arguments, call one function, print.

A command is imported when it is called, so `--help` costs no more than click itself.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from align_dsl import __version__
from align_dsl.errors import AlignError, visible

COMMANDS = {
    "init": "Write a starter project.",
    "check": "Check files, and say what is wrong in all of them at once.",
    "explain": "Show what a program means, what it will ask, and what that costs.",
    "run": "Decide every question of a program, and show how well that went.",
    "runs": "List what has been run, show one run, or remove some.",
    "compare": "Compare deciders on the very same cases.",
    "optimize": "Search a decider's settings, and judge the winner on unseen cases.",
    "studies": "List what has been optimized, or show what one search found.",
    "diff": "Show what differs between two programs and their prompts.",
    "export": "Write out a run as csv, jsonl, json or for align-system.",
    "report": "Write a run as one HTML page, to read, print or send.",
    "compile": "Write a program as a Python module.",
    "doctor": "Prove that models and their servers can be trusted, and say what to set.",
    "models": "List the models that servers offer; fetch one with --pull.",
    "schema": "Print the JSON Schema of a kind of file, for editors.",
    "completion": "Print the completion script of a shell.",
}


class Lazy(click.Group):
    """A group whose commands are modules of this package, imported only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # click's own would import every command for its help
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(n, help=h) for n, h in COMMANDS.items() if n.startswith(incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from align_dsl.errors import nearest

            ctx.fail(f"no command named `{args[0]}`; {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="align-dsl")
def cli() -> None:
    """A compiler for attribute-aligned decision-makers.

    \b
    Try:  align-dsl run programs/mta.yaml
    """


def main() -> None:
    """Run the command line and leave with a documented exit code (see docs/errors.md)."""
    try:
        code = _run()
    except BrokenPipeError:
        code = _unread()
    sys.exit(code if isinstance(code, int) else 0)


def _unread() -> int:
    """Whoever read our output has gone, as with `| head`. So do we, and say nothing of it: what is
    left would be written on the way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    return 141  # as of everybody whom SIGPIPE ends


def _run() -> object:
    code: object
    mine = sys.stdout
    try:
        code = cli.main(prog_name="align-dsl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except AlignError as error:
        said = str(error)
        marked = said.startswith(("error:", "warning:"))
        click.echo(_painted(said if marked else f"error: {said}"), err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except BrokenPipeError:
        raise
    except SystemExit as ended:
        if sys.stdout is not mine:  # click has put another in place of one that nobody reads
            raise BrokenPipeError from None
        code = ended.code
    except Exception as error:
        log = _log(error)
        click.echo(f"bug: {visible(repr(error))}\nthe traceback is in {log}", err=True)
        code = 1
    return code


def _log(error: Exception) -> Path:
    import tempfile

    handle, name = tempfile.mkstemp(prefix="align-dsl-", suffix=".log")
    with os.fdopen(handle, "w") as log:
        log.write("".join(traceback.format_exception(error)))
    return Path(name)


def _painted(text: str) -> str:
    """Colour for the words that say how bad it is; click drops it where no terminal listens."""
    if os.environ.get("NO_COLOR"):
        return text
    lines = []
    for line in text.splitlines():
        for word, colour in (("error:", "red"), ("warning:", "yellow")):
            if line.startswith(word):
                line = click.style(word, fg=colour, bold=True) + line[len(word) :]
        lines.append(line)
    return "\n".join(lines)
