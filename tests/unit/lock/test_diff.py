"""The difference of two locks, pin by pin."""

from __future__ import annotations

from dataclasses import replace

from envbuild.lock.diff import PinChange, lock_changes
from tests.unit.lock.sample import AMD64, ARM64, BASE, IDNA, LIBC, LOCK, SIX, TZDATA


def test_equal_locks_do_not_differ() -> None:
    assert lock_changes(LOCK, LOCK) == ()


def test_added_removed_changed_and_replaced_pins() -> None:
    after = replace(
        LOCK,
        platforms=(
            replace(
                AMD64,
                base=replace(BASE, packages=(replace(LIBC, version="2.41-13"), TZDATA)),
                pip=(replace(IDNA, file="idna-3.10-2-py3-none-any.whl"), replace(SIX, name="seven")),
            ),
            ARM64,
        ),
    )
    platform = "linux/amd64"
    assert lock_changes(LOCK, after) == (
        PinChange(platform=platform, kind="debian", name="libc6", before="2.41-12", after="2.41-13"),
        PinChange(
            platform=platform,
            kind="pip",
            name="idna",
            before="3.10 idna-3.10-py3-none-any.whl",
            after="3.10 idna-3.10-2-py3-none-any.whl",
        ),
        PinChange(platform=platform, kind="pip", name="seven", before=None, after="1.17.0"),
        PinChange(platform=platform, kind="pip", name="six", before="1.17.0", after=None),
    )


def test_against_no_lock_every_pin_is_new() -> None:
    changes = lock_changes(None, LOCK)
    assert all(change.before is None for change in changes)
    assert [change.name for change in changes if change.platform == "linux/arm64"] == [
        "docker.io/library/debian:trixie-slim",
        "zlib",
    ]
