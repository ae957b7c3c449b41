"""What names an image: each form, paths with colons in them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import UsageError
from envbuild.images.locator import ImageLocator, Kind

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "kind", "reference"),
    [
        ("train:3f2a", Kind.NAME, "docker.io/library/train:3f2a"),
        (f"train:3f2a@{DIGEST}", Kind.NAME, f"docker.io/library/train:3f2a@{DIGEST}"),
        ("docker://train", Kind.REGISTRY, "docker.io/library/train:latest"),
        ("docker:24", Kind.NAME, "docker.io/library/docker:24"),
        ("oci/app:1", Kind.NAME, "docker.io/oci/app:1"),
        ("localhost/team/train:1", Kind.NAME, "localhost/team/train:1"),
    ],
)
def test_a_name(text: str, kind: Kind, reference: str, tmp_path: Path) -> None:
    place = ImageLocator.parse(text, tmp_path)

    assert (place.kind, str(place.reference)) == (kind, reference)


@pytest.mark.parametrize(
    ("text", "kind", "path", "name"),
    [
        ("oci:out", Kind.LAYOUT, "out", None),
        ("oci:out:train:1", Kind.LAYOUT, "out", "train:1"),
        ("oci:there:is:train:1", Kind.LAYOUT, "there:is", "train:1"),
        ("oci:there:is", Kind.LAYOUT, "there:is", None),
        ("oci-archive:out.tar:localhost:5000/train:1", Kind.OCI_ARCHIVE, "out.tar", "localhost:5000/train:1"),
        ("docker-archive:sub/out.tar", Kind.DOCKER_ARCHIVE, "sub/out.tar", None),
    ],
)
def test_a_path(text: str, kind: Kind, path: str, name: str | None, tmp_path: Path) -> None:
    (tmp_path / "there:is").mkdir()

    place = ImageLocator.parse(text, tmp_path)

    assert (place.kind, place.path, place.name) == (kind, tmp_path / path, name)


def test_a_digest_and_an_engines_image(tmp_path: Path) -> None:
    assert ImageLocator.parse(DIGEST, tmp_path).digest == DIGEST
    place = ImageLocator.parse("docker-daemon:train:1", tmp_path)
    assert (place.kind, place.name) == (Kind.DAEMON, "train:1")


@pytest.mark.parametrize(
    "text", ["", "oci:", "oci-archive::x", "docker-daemon:", "docker://", "sha256:abc@x", "a b", "oci:a\0b"]
)
def test_what_names_nothing_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not an image"):
        ImageLocator.parse(text, tmp_path)


@pytest.mark.parametrize(
    ("text", "hosted"),
    [("train:1", False), ("team/train:1", False), ("localhost/train:1", True), ("r.example/train:1", True)],
)
def test_whether_a_name_says_its_registry(text: str, hosted: bool, tmp_path: Path) -> None:
    assert ImageLocator.parse(text, tmp_path).hosted is hosted


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"train:1@{DIGEST}", "docker.io/library/train:1"),
        (f"train@{DIGEST}", None),
        ("oci:out:r.example/train:1", "r.example/train:1"),
        ("oci:out:NOT A NAME", None),
        ("oci:out", None),
        (DIGEST, None),
    ],
)
def test_the_name_that_an_image_has_there(text: str, name: str | None, tmp_path: Path) -> None:
    given = ImageLocator.parse(text, tmp_path).given_name

    assert (given and str(given)) == name
