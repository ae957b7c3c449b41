"""``envbuild completion``: the script that completes commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from envbuild.cli.options import call_of


@click.command(short_help="Print the script that completes commands in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print the completion script of SHELL.

    For bash, in ~/.bashrc: eval "$(envbuild completion bash)"
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root().command
    script = kind(root, {}, "envbuild", "_ENVBUILD_COMPLETE")
    # source() would first run the shell to ask for its version; the template alone needs no shell.
    call_of(context).out((script.source_template % script.source_vars()).strip())
    return 0
