"""``forklift completion``: prints the script with which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
# Click's own convention. The underscore in front keeps it apart from the server's settings.
VARIABLE = "_FORKLIFT_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    For bash: forklift completion bash > ~/.local/share/bash-completion/completions/forklift

    Exit codes: 0, 2 for a shell that is not known.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "forklift", VARIABLE).source())
