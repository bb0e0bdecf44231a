"""`align-dsl completion`: the script that makes a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell, to be loaded by its start-up file.

    \b
    bash:  align-dsl completion bash > ~/.align-dsl.bash; echo '. ~/.align-dsl.bash' >> ~/.bashrc
    zsh:   align-dsl completion zsh > ~/.align-dsl.zsh; echo '. ~/.align-dsl.zsh' >> ~/.zshrc
    fish:  align-dsl completion fish > ~/.config/fish/completions/align-dsl.fish
    """
    from align_dsl.commands import cli

    script = get_completion_class(shell)
    assert script is not None  # the three shells are click's own
    # click's own `source` of bash starts bash to learn its version; the script is the same
    template, names = script.source_template, script(cli, {}, "align-dsl", COMPLETE)
    click.echo(template % names.source_vars())


COMPLETE = "_ALIGN_DSL_COMPLETE"
"""The variable by which the shell asks; click derives it from the program's name."""
