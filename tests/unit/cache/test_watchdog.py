"""Work with a registry that may fall silent."""

from __future__ import annotations

import threading

import pytest

from envbuild.cache.watchdog import Heartbeat, work_through


def test_everything_is_done_once() -> None:
    done: list[int] = []
    assert work_through(range(100), done.append, workers=8, pulse=Heartbeat(), patience=20)
    assert sorted(done) == list(range(100))


def test_nothing_to_do_is_done() -> None:
    assert work_through([], print, workers=8, pulse=Heartbeat(), patience=20)


def test_what_goes_wrong_is_raised_and_ends_the_work() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise OSError("no space")
        done.append(number)

    with pytest.raises(OSError, match="no space"):
        work_through(range(100), work, workers=1, pulse=Heartbeat(), patience=20)
    assert done == [0, 1, 2]


def test_silence_ends_the_wait_and_what_was_not_begun_stays_so() -> None:
    stuck, begun = threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        stuck.wait(20)

    assert not work_through(range(9), work, workers=2, pulse=Heartbeat(), patience=0.05)
    assert sorted(begun) == [0, 1]
    waiting = [each for each in threading.enumerate() if each.name.startswith("registry-")]
    assert all(each.daemon for each in waiting)
    stuck.set()
    for thread in waiting:
        thread.join()
    assert sorted(begun) == [0, 1]


def test_every_byte_is_a_sign_of_life() -> None:
    now = [100.0]
    pulse = Heartbeat(lambda: now[0])
    now[0] = 107.5
    assert pulse.silence == 7.5
    with pulse.task("download", "x") as task:
        task.advance(1)
    assert pulse.silence == 0.0
    now[0] = 110.0
    with pulse.stage("x"):
        assert pulse.silence == 2.5
