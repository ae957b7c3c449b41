"""``envbuild``: the group of commands, and the one place where errors end.

A command's module is imported when the command is called, so help and completion stay instant.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import click

import envbuild
from envbuild.cli.call import Call
from envbuild.cli.interrupt import INTERRUPTED, interruptible, leave
from envbuild.cli.options import display_options
from envbuild.cli.show.text import paint, printable
from envbuild.errors import EnvbuildError, did_you_mean
from envbuild.lazy import lazy
from envbuild.redact import redact

if TYPE_CHECKING:
    import logging
    import traceback

    from click import shell_completion
else:
    shell_completion = lazy("click.shell_completion")
    logging = lazy("logging")
    traceback = lazy("traceback")

# Each command with the one line that the group's help shows of it: help must not import them all.
COMMANDS = {
    "import": "Read an environment from any known source and write it as a spec.",
    "lock": "Resolve a spec into lockfiles, or check that they answer it.",
    "plan": "Show the layers and artifacts of the image that a build would make.",
    "render": "Write the Dockerfile of a spec, with everything its build needs.",
    "build": "Build the image of a spec and print its pinned reference.",
    "run": "Run a command in the image of a spec.",
    "push": "Push an image that is here to a registry.",
    "pull": "Bring an image into the store and to other places.",
    "copy": "Copy an image between registries, layouts and archives.",
    "prune": "Remove old images of a repository that envbuild made.",
    "publish": "Push an image and write the files that run it elsewhere.",
    "serve": "Serve an entry script in the environment of a spec.",
    "target": "Keep the places where images run.",
    "runs": "Show what was run on targets.",
    "sbom": "Print the bill of materials of an image.",
    "inspect": "Show what an image is and what is in it.",
    "diff": "Show what differs between two images.",
    "verify": "Compose an image again from its own lock, and compare.",
    "rebase": "Put an image on another base, its software as it is.",
    "lint": "Look for what is doubtful in specs.",
    "env": "Keep environments as named, numbered versions.",
    "curated": "List and show the environments that come with envbuild.",
    "cache": "Show or prune the local store.",
    "doctor": "Show what envbuild finds on this machine.",
    "schema": "Print the JSON Schema of a spec.",
    "completion": "Print the script that completes commands in a shell.",
}


class LazyGroup(click.Group):
    """A group that imports ``envbuild.cli.commands.<command>`` when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # A module can't be called as Python's own statement.
        module = "import_" if cmd_name == "import" else cmd_name
        command = import_module(f"envbuild.cli.commands.{module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no such command: {args[0]}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(envbuild.__version__, prog_name="envbuild", message="%(prog)s %(version)s")
@display_options
def cli() -> None:
    """Compile environment specs into lockfiles and reproducible images: same lock, same bytes."""


def main(argv: Sequence[str] | None = None, *, call: Call | None = None) -> int:
    """Runs the command line and returns its exit status (docs/design.md §8); never raises but for a bug in
    here.

    Without a ``call`` it is this process's own, and signals end the process."""
    if call is not None:
        return _status(argv, call)
    _speak_utf8()
    with interruptible() as interruption:
        status = _status(argv, replace(Call.here(), interruption=interruption))
        if interruption.status is not None:
            leave(interruption.status)
    return status


def _speak_utf8() -> None:
    """Starts this process again in UTF-8 mode where the locale has another encoding for file names: names
    in packages are UTF-8, and an image must not depend on a locale."""
    if sys.getfilesystemencoding().lower() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _status(argv: Sequence[str] | None, call: Call) -> int:
    try:
        with _logging(call):
            result = _invoke(sys.argv[1:] if argv is None else list(argv), call)
        call.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        call.stderr.write(error.format_message() + "\n")
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        call.complain(error.format_message())
        call.hint(f"{context.command_path if context else 'envbuild'} --help shows what it takes")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        return _pipe_closed()
    except EnvbuildError as error:
        return _explain(call, error)
    except OSError as error:
        # The machine's own words are the best there are (no space left, too many open files…).
        call.complain(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        _trace(call)
        return 1
    except Exception as error:  # noqa: BLE001 - this is the boundary
        if call.interruption is not None and call.interruption.status is not None:
            # Ctrl-C inside a lock of Python's own comes out as the error of the lock.
            return call.interruption.status
        call.complain(f"unexpected {type(error).__name__}: {error}")
        if not call.debug:
            call.hint("this is a fault of envbuild; --debug shows where it happened")
        _trace(call)
        return 1


def _invoke(argv: list[str], call: Call) -> object:
    """What the command returned. click's own ``main`` would take broken pipes and interrupts for itself."""
    asked = call.environ.get("_ENVBUILD_COMPLETE")
    if asked:
        return shell_completion.shell_complete(cli, {"obj": call}, "envbuild", "_ENVBUILD_COMPLETE", asked)
    try:
        with cli.make_context("envbuild", argv, obj=call) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code


def _explain(call: Call, error: EnvbuildError) -> int:
    for problem in getattr(error, "problems", ()) or (error.message,):
        call.complain(str(problem))
    if error.hint:
        call.hint(error.hint)
    _trace(call)
    return error.exit_code


def _trace(call: Call) -> None:
    if call.debug:
        call.stderr.write(redact(traceback.format_exc()))


def _pipe_closed() -> int:
    """Ends quietly when the reader of our output has gone; the status is that of SIGPIPE, as for cat."""
    # What is still buffered must not be tried again when the interpreter shuts down.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return 128 + signal.SIGPIPE


@contextmanager
def _logging(call: Call) -> Iterator[None]:
    """Shows the log of envbuild on stderr: warnings, with ``-vv`` or ``--debug`` everything.

    The level is asked for at each record, as options are parsed after this began.
    """

    class Handler(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self._said: set[str] = set()

        def emit(self, record: logging.LogRecord) -> None:
            everything = call.debug or call.verbose > 1
            if record.levelno < logging.WARNING and not everything:
                return
            warning = record.levelno >= logging.WARNING
            label = paint("warning:", "yellow", "bold", color=call.color) if warning else record.name + ":"
            text = printable(redact(record.getMessage()), lines=True)
            # A command reads the settings for each of its specs; their warnings are the same then.
            if record.name != "envbuild.settings" or text not in self._said:
                call.stderr.write(f"{label} {text}\n")
            self._said.add(text)

    logger = logging.getLogger("envbuild")
    handler = Handler()
    level, logger_propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = logger_propagates
