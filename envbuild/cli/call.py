"""One call of the command line: its options, where its words go, and the session it works with."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from envbuild.cli.show.text import paint, printable
from envbuild.lazy import lazy
from envbuild.redact import redact

if TYPE_CHECKING:
    from envbuild import settings as settings_module
    from envbuild.app import environments
    from envbuild.app import session as app_session
    from envbuild.app.session import Session
    from envbuild.cli.interrupt import Interruption
    from envbuild.cli.show import progress as progress_display
    from envbuild.cli.show import report
    from envbuild.cli.show.progress import Display
    from envbuild.settings import Settings
else:
    app_session = lazy("envbuild.app.session")
    environments = lazy("envbuild.app.environments")
    progress_display = lazy("envbuild.cli.show.progress")
    report = lazy("envbuild.cli.show.report")
    settings_module = lazy("envbuild.settings")


@dataclass(kw_only=True)
class Call:
    """What every command is given. Options fill it in while they are parsed; commands only read it."""

    environ: Mapping[str, str]
    cwd: Path
    stdout: TextIO
    stderr: TextIO
    clock: Callable[[], float] = time.monotonic
    today: Callable[[], date] = date.today
    make_session: Callable[..., Session] | None = None
    """Makes sessions in the place of ``Session`` itself."""
    flags: dict[str, object] = field(default_factory=dict)
    """Settings that were given as options, by the setting's name."""
    progress: str = "auto"
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    no_color: bool = False
    interruption: Interruption | None = None
    """What ends this process, where it is ours to end."""

    @classmethod
    def here(cls) -> Call:
        """The call of this process."""
        return cls(environ=os.environ, cwd=Path.cwd(), stdout=sys.stdout, stderr=sys.stderr)

    @property
    def color(self) -> bool:
        """Whether to colour what people read: on a terminal, unless they said no (no-color.org)."""
        if self.no_color or self.environ.get("NO_COLOR") or self.environ.get("TERM") == "dumb":
            return False
        return self.stderr.isatty()

    @property
    def live(self) -> bool:
        """Whether the live display can be drawn."""
        return self.stderr.isatty() and self.environ.get("TERM") != "dumb"

    def out(self, text: str) -> None:
        """Writes data: a line on stdout."""
        self.stdout.write(text + "\n")

    def say(self, text: str) -> None:
        """Tells people a line on stderr, unless they asked for quiet. ``text`` is ours or neutralised."""
        if not self.quiet:
            self.stderr.write(redact(text) + "\n")

    def settings(self, spec: str | None = None) -> Settings:
        """The settings that hold; a project's file is looked for from the spec's directory up to the root of
        its repository."""
        start = None
        if spec is not None:
            path = self.cwd / spec
            start = path if path.is_dir() else path.parent
        return settings_module.load_settings(self.flags, self.environ, self.cwd, start=start)

    @contextmanager
    def session(self, spec: str | None = None) -> Iterator[Session]:
        """What the operations of ``envbuild.app`` take, with progress shown while the context is open, and
        the ``-v`` table after it. ``spec`` is where a project's settings are looked for."""
        settings = self.settings(spec)
        with (
            self._shown() as display,
            (self.make_session or app_session.Session)(
                settings, display, environ=self.environ, directory=self.cwd
            ) as session,
        ):
            yield session

    @contextmanager
    def workspace(self, spec: str | None = None) -> Iterator[environments.Workspace]:
        """The workspace of the settings, for commands that only look at its records: nothing shows
        progress."""
        with environments.Workspace(self.settings(spec), environ=self.environ) as workspace:
            yield workspace

    @contextmanager
    def _shown(self) -> Iterator[Display]:
        display = self._display()
        with display:
            yield display
        if self.verbose and not self.quiet:
            for line in report.stage_lines(display.tally):
                self.say(line)

    def _display(self) -> Display:
        screen: progress_display.Screen = progress_display.PlainScreen(self.stderr)
        if self.quiet or self.progress == "none":
            screen = progress_display.NoScreen()
        elif self.progress == "auto" and self.live:
            screen = progress_display.LiveScreen(self.stderr, color=self.color)
        return progress_display.Display(screen, self.clock)

    def wait_for_jobs(self) -> None:
        """Lets a job be stopped where it runs before Ctrl-C ends this process; a second one ends it."""
        if self.interruption is not None:
            self.interruption.wait_for_jobs()

    def complain(self, text: str) -> None:
        """Tells people what is wrong, also under ``--quiet``, without the logins in addresses they wrote."""
        self._labelled("error", "red", text)

    def hint(self, text: str) -> None:
        self._labelled("hint", "cyan", text)

    def _labelled(self, label: str, style: str, text: str) -> None:
        shown = printable(redact(text), lines=True).replace("\n", "\n" + " " * (len(label) + 2))
        self.stderr.write(paint(f"{label}:", style, "bold", color=self.color) + f" {shown}\n")
