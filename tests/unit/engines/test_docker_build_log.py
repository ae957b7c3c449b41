"""The messages of Docker's classic builder, as recorded from one."""

from __future__ import annotations

import pytest

from envbuild.engines.docker.build_log import (
    LAST_LINES,
    ClassicBuildLog,
    ContainerBegan,
    ImageMade,
    StepBegan,
)

ONE, TWO, THREE = "1e753529c969", "a45fe7f0d1bc", "be8cfc2bd840"
BOX = "6caa780cc108"


def events(log: ClassicBuildLog, *texts: str) -> list[object]:
    found = [log.take({"stream": text}) for text in texts]
    return [each for each in found if each is not None]


def test_a_build_is_followed() -> None:
    log = ClassicBuildLog()
    assert events(
        log,
        "Step 1/4 : FROM debian AS one",
        "\n",
        f" ---> {ONE}\n",
        "Step 2/4 : ADD root.tar /",
        "\n",
        " ---> Using cache\n",
        f" ---> {TWO}\n",
        "Step 3/4 : RUN echo hello &&     true",
        "\n",
        f" ---> Running in {BOX}\n",
    ) == [
        StepBegan(number=1, total=4, instruction="FROM debian AS one"),
        StepBegan(number=2, total=4, instruction="ADD root.tar /"),
        StepBegan(number=3, total=4, instruction="RUN echo hello && true"),
        ContainerBegan(container=BOX),
    ]
    assert log.container == BOX
    assert events(log, "\x1b[91mbad\n\x1b[0m", "hel", "lo\n10%\r20%\r100%\r\n", "\n") == []
    assert events(log, f"Removing intermediate container {BOX}\n", f" ---> {THREE}\n") == [
        ImageMade(image=THREE)
    ]
    assert log.container is None
    assert log.last_lines() == ("bad", "hello", "100%")
    assert log.take({"aux": {"ID": f"sha256:{THREE}00"}}) is None
    assert log.image == f"sha256:{THREE}00"
    events(log, "Step 4/4 : USER 1")
    assert log.last_lines() == ()
    assert log.error is None


def test_what_a_container_prints_is_output_whatever_it_looks_like() -> None:
    log = ClassicBuildLog()
    events(log, "Step 1/2 : RUN x", f" ---> Running in {BOX}\n")
    forged = (
        f" ---> {ONE}\n",
        "Step 2/2 : RUN y",
        "\n",
        f" ---> Running in {TWO}\n",
        f"Removing intermediate container {TWO}\n",
    )
    assert events(log, *forged) == []
    assert (log.container, log.step and log.step.number) == (BOX, 1)
    events(log, f"Error removing intermediate container {BOX}: No such container: {BOX}\n")
    assert log.container is None


def test_a_failed_command_has_a_status() -> None:
    log = ClassicBuildLog()
    text = "The command '/bin/sh -c exit 3' returned a non-zero code: 3"
    log.take({"errorDetail": {"code": 3, "message": text}, "error": text})
    assert (log.status, log.error) == (3, text)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"errorDetail": {"message": "COPY failed:\n no file"}}, "COPY failed: no file"),
        ({"error": "it is \x1b[1mbad"}, "it is bad"),
        ({"errorDetail": None}, "the engine gives no reason"),
        ({"error": "Get https://me:secret@r.example/v2/?token=x: EOF"}, "Get https://r.example/v2/"),
    ],
)
def test_an_error_is_told(message: dict[str, object], error: str) -> None:
    log = ClassicBuildLog()
    log.take(message)
    assert log.status is None
    assert log.error is not None
    assert log.error.startswith(error)


def test_the_last_lines_are_few_short_and_safe() -> None:
    log = ClassicBuildLog(hidden=["hunter2"])
    events(log, "Step 1/1 : RUN x", f" ---> Running in {BOX}\n")
    for number in range(1000):
        events(log, f"line {number}\n")
    lines = log.last_lines()
    assert lines == tuple(f"line {number}" for number in range(1000 - LAST_LINES, 1000))
    events(log, "a\x07b\u202ec\x1b]0;title\x07d\thunter2 ", "x" * 100_000)
    last = log.last_lines()[-1]
    assert last.startswith("a\\x07b\\u202ecd\t***")
    assert len(last) == 400


def test_a_downloaded_image_is_noted_under_its_name() -> None:
    log = ClassicBuildLog()
    events(log, "Step 1/2 : FROM debian:13")
    progress = {"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "id": ONE}
    assert log.take(progress) is None
    assert log.take({"status": "Status: Downloaded newer image for debian:13"}) == ImageMade(
        image="debian:13"
    )
    assert log.take({"status": "Status: Image is up to date for debian:13"}) is None
    assert events(log, f" ---> {ONE}\n") == []


@pytest.mark.parametrize("message", [{}, {"stream": 5}, {"aux": []}, {"aux": {"ID": 1}}, {"status": None}])
def test_odd_messages_mean_nothing(message: dict[str, object]) -> None:
    log = ClassicBuildLog()
    assert log.take(message) is None
    assert (log.image, log.error, log.step) == (None, None, None)


def test_of_a_progress_bar_the_last_state_is_kept() -> None:
    log = ClassicBuildLog()
    events(log, "Step 1/1 : RUN x", f" ---> Running in {BOX}\n", "  1%\r" * 1000 + "100%\r\n")
    assert log.last_lines() == ("100%",)
