"""Where errors end: message, hint, exit status; and how fast and light the command line starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from envbuild.cli.main import COMMANDS, cli
from envbuild.errors import (
    BuildError,
    EnvbuildError,
    FetchError,
    LockError,
    PublishError,
    ResolveError,
    RunError,
    SpecError,
    WorkspaceError,
)
from tests.unit.cli.conftest import CommandLine


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EnvbuildError("no"), 1),
        (SpecError("no"), 3),
        (ResolveError("no"), 4),
        (LockError("no"), 5),
        (BuildError("no"), 6),
        (FetchError("no"), 6),
        (PublishError("no"), 7),
        (WorkspaceError("no"), 8),
        (RunError("no"), 9),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status_is_the_stages(envbuild: CommandLine, error: BaseException, status: int) -> None:
    envbuild.answers.fault = error
    shown = envbuild("build")
    assert (shown.status, shown.out) == (status, "")
    assert "Traceback" not in shown.err


def test_interrupt_is_quiet(envbuild: CommandLine) -> None:
    envbuild.answers.fault = KeyboardInterrupt()
    assert envbuild("build").err == ""


def test_all_problems_of_a_spec_are_listed(envbuild: CommandLine) -> None:
    envbuild.answers.fault = SpecError("2", hint="look", problems=["a.yml: one", "a.yml: \x1b[2Jtwo"])
    assert envbuild("build").err == "error: a.yml: one\nerror: a.yml: \\x1b[2Jtwo\nhint: look\n"


def test_unexpected_error_says_so_and_debug_shows_where(envbuild: CommandLine) -> None:
    envbuild.answers.fault = RuntimeError("boom")
    shown = envbuild("build")
    assert shown.status == 1
    assert shown.err.startswith("error: unexpected RuntimeError: boom\nhint: ")
    assert "Traceback" in envbuild("build", "--debug").err


def test_operating_system_error_keeps_its_words(envbuild: CommandLine) -> None:
    envbuild.answers.fault = OSError(28, "No space left on device", "/store/x")
    shown = envbuild("build")
    assert (shown.status, shown.err) == (1, "error: No space left on device: /store/x\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bild"], "no such command: bild; did you mean build?"),
        (["build", "--lod"], "--lod"),
        (["build", "-p", "windows"], "unknown platform 'windows'"),
        (["lock", "--as-of", "soon"], "'soon' is not a date like 2026-11-01"),
        (["lock", "--check", "--upgrade"], "--check and --upgrade exclude each other"),
        (["cache", "prune", "--max-size", "big"], "--max-size must be a size like 20GB, not 'big'"),
        (["cache", "prune", "--max-age", "1 year"], "--max-age must be an age like 30d or 12h, not '1 year'"),
    ],
)
def test_usage_error_is_exit_two_with_a_message(envbuild: CommandLine, argv: list[str], message: str) -> None:
    shown = envbuild(*argv)
    assert shown.status == 2
    assert message in shown.err
    assert shown.out == ""


def test_no_color_and_pipes_have_no_escapes(envbuild: CommandLine) -> None:
    envbuild.answers.fault = BuildError("no")
    assert "\x1b" not in envbuild("build").err
    envbuild.terminal = True
    assert envbuild("build").err.startswith("\x1b[31;1merror:\x1b[0m no")
    assert "\x1b" not in envbuild("build", "--no-color").err
    envbuild.environ["NO_COLOR"] = "1"
    assert "\x1b" not in envbuild("build").err


def test_help_of_the_group_says_what_each_command_says_of_itself() -> None:
    context = click.Context(cli)
    for name, text in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == text


def test_every_command_shows_help(envbuild: CommandLine, capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert envbuild(name, "--help").status == 0
        assert f"Usage: envbuild {name}" in capsys.readouterr().out


def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m envbuild completion bash | true"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
        timeout=30,
    )
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)


HEAVY = [
    "rattler",
    "httpx",
    "docker",
    "pydantic",
    "conda_lock",
    "pysequoia",
    "rich",
    "jinja2",
    "ruamel",
    "uv",
]


def test_start_imports_nothing_heavy() -> None:
    program = "import sys, envbuild.cli.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = done.stdout.split()
    assert "click" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_an_interrupt_while_the_command_line_is_imported_ends_the_process_without_a_traceback() -> None:
    program = """
import os, signal, sys
from envbuild.__main__ import main

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "envbuild.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_package_alone_imports_only_itself() -> None:
    program = "import sys, envbuild; print(*sorted(n for n in sys.modules if n.startswith('envbuild')))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["envbuild", "envbuild._version"]
