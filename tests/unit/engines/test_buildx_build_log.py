"""BuildKit's log: recorded from Docker 20.10 and in the form of BuildKit 0.13, told and judged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

import pytest

from envbuild.engines.buildx.build_log import LAST_LINES, LONGEST, BuildKitLog
from envbuild.progress import Task

GOOD = r"""
#1 [internal] load build definition from Dockerfile
#1 sha256:915e6b1e1eb9ead1ebce2b73ae32bf765233d453c4360f5bfce4cb681656c6ca
#1 transferring dockerfile: 384B done
#1 DONE 0.0s

#3 [internal] load build context
#3 sha256:1b19f0b695a87dbfcdcaeee60607b85bf678ab52e2c358e9d5dfc535c3a86999
#3 transferring context: 2.33MB 0.0s done
#3 DONE 0.0s

#4 [base 1/1] ADD base.tar.gz /
#4 sha256:d75711db75b332fce89c231549a8aa32c978479129047b53d1be6a5a4d82cdfa
#4 CACHED

#5 [final 1/3] RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=x pip install
#5 sha256:b2e18bfaa51eb520fbbe2c299f8c7d8d086259009b6e92afc2124d2b8ee52902
#5 0.067 DONE 9.9s
#5 0.068 #6 ERROR: no
#5 ...

#6 [final 2/3] COPY f /f
#6 sha256:5a86a4e4ee46edc7aadf0e76745581a798a97dbadfa8320c5f3178cd6b1c4b0b
#6 DONE 0.0s
#6 DONE 0.1s

#5 [final 1/3] RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=x pip install
#5 1.5 second half
#5 DONE 1.6s

#8 exporting to image
#8 writing image sha256:9a8759718af51dba859b7600d6d146a1dd22d7dc29e46ca776c408d102d3b39b done
#8 DONE 0.0s
"""

FAILED_20_10 = r"""
#4 [base 1/1] ADD base.tar.gz /
#4 sha256:2c5e6d813d114469163e2ba8110e1c596e9e7f03fba678f2b471904b309da051
#4 CACHED

#8 [final 4/4] RUN echo "before"; echo "to stderr" >&2; exit 7
#8 sha256:d7fb8c4ed8a34deeb4eb969d876799a31310a1df9fe4d7e2b1c191c150dad082
#8 0.055 to stderr
#8 0.055 before
#8 ERROR: executor failed running [/bin/sh -c echo "before"; echo "to stderr" >&2; exit 7]: exit code: 7
------
 > [final 4/4] RUN echo "before"; echo "to stderr" >&2; exit 7:
------
executor failed running [/bin/sh -c echo "before"; echo "to stderr" >&2; exit 7]: exit code: 7
"""

FAILED_0_13 = r"""
#0 building with "many" instance using docker-container driver

#7 [side 2/2] RUN sleep 60
#7 CANCELED

#6 [2/3] RUN make
#6 0.301 cc: not found
#6 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 127
------
 > [2/3] RUN make:
0.301 cc: not found
------
Dockerfile:3
--------------------
   3 | >>> RUN make
--------------------
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 127
"""

NO_STEP = r"""
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 56B done
#1 DONE 0.0s
failed to solve with frontend dockerfile.v0: dockerfile parse error line 2: unknown instruction: FOO
"""

NO_BASE = r"""
#3 [internal] load metadata for example.test/x@sha256:2c5e
#3 ERROR: failed to do request: Head "https://me:pw@example.test/v2/x": lookup example.test: no such host
------
 > [internal] load metadata for example.test/x@sha256:2c5e:
------
failed to solve: lookup example.test: no such host
"""


@dataclass
class Heard:
    """A progress that remembers."""

    notes: list[str] = field(default_factory=list)
    tasks: list[list[object]] = field(default_factory=list)

    def task(self, stage: str, what: str, *, total: int | None = None, unit: str = "B") -> Task:
        entry: list[object] = [what, 0, "open"]
        self.tasks.append(entry)
        return HeardTask(entry)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass
class HeardTask:
    entry: list[object]

    def advance(self, amount: int) -> None:
        assert isinstance(self.entry[1], int)
        self.entry[1] += amount

    def __enter__(self) -> HeardTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entry[2] = "closed"


def read(text: str, heard: Heard | None = None, hidden: tuple[str, ...] = ()) -> BuildKitLog:
    log = BuildKitLog(heard or Heard(), hidden)
    for line in text.encode().splitlines(keepends=True):
        log.line(line)
    return log


def test_each_step_is_a_task_and_its_end_a_note() -> None:
    heard = Heard()
    read(GOOD, heard)
    assert heard.notes == [
        "[base 1/1] ADD base.tar.gz /: cached",
        "[final 2/3] COPY f /f: 0.0 s",
        "[final 1/3] RUN pip install: 1.6 s",
    ]
    assert heard.tasks == [
        ["[base 1/1] ADD base.tar.gz /", 1, "closed"],
        ["[final 1/3] RUN pip install", 1, "closed"],
        ["[final 2/3] COPY f /f", 1, "closed"],
    ]


def test_output_goes_to_the_log_and_is_never_taken_for_an_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "envbuild.engines.buildx.build_log"):
        read(GOOD)
    assert [message for message in caplog.messages if " | " in message] == [
        "[final 1/3] | DONE 9.9s",
        "[final 1/3] | #6 ERROR: no",
        "[final 1/3] | second half",
    ]


def test_a_failing_step_is_named_with_its_instruction_and_its_last_lines() -> None:
    error = read(FAILED_20_10).failure(1, "linux/amd64")
    assert error.exit_code == 6
    assert error.message == (
        "the step [final 4/4] failed: exit code 7\n"
        '  RUN echo "before"; echo "to stderr" >&2; exit 7\n'
        "the end of its log:\n"
        "  to stderr\n"
        "  before"
    )


def test_a_newer_buildkits_words_are_understood() -> None:
    error = read(FAILED_0_13).failure(1, "linux/amd64")
    assert error.message == (
        "the step [2/3] failed: exit code 127\n  RUN make\nthe end of its log:\n  cc: not found"
    )


def test_a_step_that_was_only_stopped_by_another_is_not_blamed() -> None:
    text = "#1 [a 1/1] RUN x\n#1 ERROR: context canceled\n#2 [b 1/1] RUN y\n#2 ERROR: exit code: 3\n"
    assert read(text).failure(1, "linux/amd64").message.startswith("the step [b 1/1] failed: exit code 3")


def test_without_a_failing_step_the_builders_last_words_count() -> None:
    assert read(NO_STEP).failure(1, "linux/amd64").message == (
        "the build failed: failed to solve with frontend dockerfile.v0: dockerfile parse error line 2: "
        "unknown instruction: FOO"
    )
    assert read("").failure(125, "linux/amd64").message == "the build failed: status 125"


def test_a_base_that_cant_be_had_is_named_without_the_login() -> None:
    error = read(NO_BASE).failure(1, "linux/amd64")
    assert error.message == (
        "the build failed: [internal] load metadata for example.test/x@sha256:2c5e: failed to do request: "
        'Head "https://example.test/v2/x": lookup example.test: no such host'
    )
    assert error.hint is not None
    assert "--offline" in error.hint


def test_another_machines_programs_are_explained() -> None:
    text = "#1 [1/1] RUN x\n#1 0.1 exec /bin/sh: exec format error\n#1 ERROR: exit code: 1\n"
    assert "linux/arm64" in (read(text).failure(1, "linux/arm64").hint or "")


def test_only_the_end_of_a_long_log_is_quoted() -> None:
    lines = "".join(f"#1 0.{number} line {number}\n" for number in range(100))
    message = read(f"#1 [1/1] RUN x\n{lines}#1 ERROR: exit code: 1\n").failure(1, "linux/amd64").message
    assert message.splitlines()[3:] == [f"  line {number}" for number in range(100 - LAST_LINES, 100)]


def test_secrets_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "#1 [1/1] RUN get https://me:word@x.test/?sig=abc s3cret\n#1 0.1 token s3cret\n"
        "#1 0.2 GET https://me:word@x.test/f?sig=abc\n#1 ERROR: s3cret: exit code: x\ns3cret\n"
    )
    heard = Heard()
    with caplog.at_level(logging.DEBUG):
        error = read(text, heard, ("s3cret",)).failure(1, "linux/amd64")
    shown = "\n".join([error.message, caplog.text, str(heard.tasks), *heard.notes])
    assert "token ***" in shown
    assert not [word for word in ("s3cret", "word", "sig=") if word in shown]


def test_a_line_without_end_is_cut() -> None:
    log = BuildKitLog(Heard())
    log.line(b"#1 [1/1] RUN x\n")
    log.line(b"#1 0.1 " + b"x" * (10 * LONGEST))
    log.line(b"#1 ERROR: exit code: 1\n")
    assert len(log.failure(1, "linux/amd64").message) < LONGEST + 200


def test_closing_ends_what_is_open() -> None:
    heard = Heard()
    read("#1 [1/1] RUN x\n", heard).close()
    assert heard.tasks == [["[1/1] RUN x", 0, "closed"]]
