"""Rules about conda's channels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envbuild.lint.model import Doubt
from envbuild.lint.subject import Subject
from envbuild.specs.importers.conda.environment import DEFAULT_CHANNEL

_ANACONDA = re.compile(
    r"(?:defaults|anaconda|main|pkgs/(?:main|r|msys2|pro|free)|"
    r"https?://(?:repo\.anaconda\.com|conda\.anaconda\.org/(?:anaconda|main))(?:/.*)?)"
)


def missing(subject: Subject) -> Iterator[Doubt]:
    if _is_missing(subject):
        yield Doubt(
            message=f"no channels, so conda's own ({DEFAULT_CHANNEL}) are taken",
            where=subject.places.conda("dependencies"),
            hint="name them, e.g. channels: [conda-forge]",
        )


def licence(subject: Subject) -> Iterator[Doubt]:
    conda = subject.spec.conda
    if conda is None or _is_missing(subject):
        return
    for channel in conda.channels:
        if _ANACONDA.fullmatch(channel):
            yield Doubt(
                message=f"the channel {channel} is under Anaconda's terms: larger organisations pay",
                where=subject.places.conda("channels"),
                hint="conda-forge has the same packages for everybody",
            )


def _is_missing(subject: Subject) -> bool:
    conda = subject.spec.conda
    if conda is None or conda.explicit:
        return False
    if not conda.channels:
        return True
    return conda.channels == (DEFAULT_CHANNEL,) and subject.places.says_channels() is False
