"""Draws docs/images/build.svg: a terminal with the README's first commands, as they ran here.

Usage: .venv/bin/python scripts/picture.py (with tmux). The store is a new one, so everything is downloaded.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 100, 40
SECONDS = 300
COMMANDS = (
    "envbuild lock examples/sklearn --check",
    "envbuild build examples/sklearn -o oci:out",
    "envbuild run examples/sklearn -- python -c 'import sklearn; print(sklearn.__version__)'",
)


def tmux(*arguments: str) -> str:
    """What tmux printed; a server of our own."""
    return subprocess.run(
        ["tmux", "-L", f"picture-{os.getpid()}", "-f", "/dev/null", *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def screen() -> str:
    """The terminal's lines, with colours."""
    return tmux("capture-pane", "-p", "-e", "-t", "picture").rstrip("\n")


def recorded(directory: Path) -> str:
    """The screen after the commands have run in a copy of the examples below ``directory``."""
    subprocess.run(["cp", "-r", str(ROOT / "examples"), str(directory)], check=True)
    env = {
        "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(directory),
        "PS1": "$ ",
        "HISTFILE": "",
        "LANG": "C.UTF-8",
        "ENVBUILD_CACHE_DIR": str(directory / "cache"),
    }
    words = [f"{name}={value}" for name, value in env.items()]
    size = ("-x", str(WIDTH), "-y", str(HEIGHT))
    tmux("new-session", "-d", "-s", "picture", *size, "-c", str(directory), "env", *words, "bash", "--norc")
    try:
        for number, command in enumerate(COMMANDS):
            wait_for_prompt(after=number)
            tmux("send-keys", "-t", "picture", "-l", command)
            tmux("send-keys", "-t", "picture", "Enter")
        wait_for_prompt(after=len(COMMANDS))
        return screen().rsplit("\n", 1)[0]
    finally:
        tmux("kill-server")


def wait_for_prompt(*, after: int) -> None:
    """Until that many commands have run and the shell waits for another."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        shown = Text.from_ansi(screen()).plain.splitlines()
        if (
            shown
            and shown[-1].strip() == "$"
            and sum(line.startswith("$ envbuild") for line in shown) == after
        ):
            return
        time.sleep(0.3)
    raise SystemExit(f"no prompt within {SECONDS} s")


def drawn(text: str) -> str:
    """The SVG. It names no font of the network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(text))
    svg = console.export_svg(title="envbuild", unique_id="build")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace(
        "Fira Code, monospace", "monospace"
    )
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        (ROOT / "docs" / "images" / "build.svg").write_text(
            drawn(recorded(Path(directory))), encoding="utf-8"
        )
