"""Where the process starts: the ``envbuild`` command and ``python -m envbuild``."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the command line of this process and returns its exit status."""
    # Until the command line handles signals itself, Ctrl-C ends the process without Python's traceback.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Only now: this import is most of what the process does before it handles signals.
    from envbuild.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
