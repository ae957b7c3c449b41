"""The images that a Dockerfile names, and the same file with their digests."""

from __future__ import annotations

import pytest

from envbuild.specs.dockerfile_images import dockerfile_images, with_digests

HUB = "docker.io/library"
DIGEST = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"


def named(text: str) -> list[tuple[int, str | None]]:
    return [(image.line, image.reference) for image in dockerfile_images(text)]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM python:3.11\n", [(1, f"{HUB}/python:3.11")]),
        ("from python\n", [(1, f"{HUB}/python:latest")]),
        ("FROM --platform=$BUILDPLATFORM go:1 AS b\n", [(1, f"{HUB}/go:1")]),
        (f"FROM python@{DIGEST}\nFROM a/b:1@{DIGEST}\n", []),
        ("FROM scratch\nCOPY --from=scratch / /\n", [(2, f"{HUB}/scratch:latest")]),
        # A stage is known to later steps by its name, in any case, and by its number.
        ("FROM a:1 AS B\nFROM b\nCOPY --from=B x y\nCOPY --from=0 x y\n", [(1, f"{HUB}/a:1")]),
        # Before it is one, its name is an image's; for COPY it is the stage wherever that stands.
        ("FROM late\nCOPY --from=late x y\nFROM b:1 AS late\n",
         [(1, f"{HUB}/late:latest"), (3, f"{HUB}/b:1")]),
        ("FROM debian AS debian\nFROM debian\n", [(1, f"{HUB}/debian:latest")]),
        ("FROM s.example:5000/a:1\nCOPY --chown=1 --from=s.example/c:2 x y\n",
         [(1, "s.example:5000/a:1"), (2, "s.example/c:2")]),
        ("FROM scratch\nRUN --mount=type=cache,target=/c --mount=from=tools:1,target=/t : --mount=from=no\n",
         [(2, f"{HUB}/tools:1")]),
        ("FROM \\\n  # python:2\n  python:3 \\\n  AS x\n", [(1, f"{HUB}/python:3")]),
        ("ARG TAG=3.11\nARG NAME=python:${TAG}\nFROM ${NAME}-slim\n", [(3, f"{HUB}/python:3.11-slim")]),
        ("FROM a:${TAG:-1}\nFROM a:2${TAG:+x}\n", [(1, f"{HUB}/a:1"), (2, f"{HUB}/a:2")]),
        ("ARG TAG=\nFROM a:${TAG:-1}\n", [(2, f"{HUB}/a:1")]),
        # What nobody here knows.
        ("ARG TAG\nFROM a:$TAG\nARG TAG=1\nFROM b:$TAG\n", [(2, None), (4, None)]),
        ("FROM a:${TARGETARCH}\nFROM a:${TARGETARCH:-amd64}\n", [(1, None), (2, None)]),
        ("ARG A=$B\nFROM a:${A:-1}\n", [(2, None)]),
        ('FROM "a:1"\n', [(1, None)]),
        ("FROM py\\\nthon:3\n", [(1, None)]),
        ("FROM UPPER\n", [(1, None)]),
        # Directives stand at the head; another comment ends them.
        ("# check=error=true\n# syntax = a/b:1\nFROM scratch\n", [(2, "docker.io/a/b:1")]),
        ("# a comment\n# syntax=docker/dockerfile:1\nFROM scratch\n", []),
        ("FROM scratch\nCOPY <<EOF /x\nFROM no:1\nEOF\n", []),
        ("FROM\nCOPY --from\n\\\n", []),
    ],
)  # fmt: skip
def test_images_without_a_digest_are_named_with_the_values_of_arguments(
    text: str, images: list[tuple[int, str | None]]
) -> None:
    assert named(text) == images


def test_digests_are_written_where_the_names_stand_and_nothing_else_changes() -> None:
    text = (
        "# syntax=docker/dockerfile:1\r\n"
        "ARG TAG=3.11\r\n"
        "FROM --platform=linux/amd64 \\\n"
        "  # python:3.11 is a comment\n"
        "  python:${TAG} AS python\r\n"
        "RUN --mount=from=tools:1,target=/a --mount=target=/b,from=tools:1 from=tools:1\n"
        "COPY --from=tools:1 /x /x\n"
        "COPY --from=other:1 /x /x\n"
        "FROM python\udcff"
    )
    digests = {
        "docker.io/docker/dockerfile:1": OTHER,
        f"{HUB}/python:3.11": DIGEST,
        f"{HUB}/tools:1": OTHER,
    }
    assert with_digests(text, digests) == (
        f"# syntax=docker/dockerfile:1@{OTHER}\r\n"
        "ARG TAG=3.11\r\n"
        "FROM --platform=linux/amd64 \\\n"
        "  # python:3.11 is a comment\n"
        f"  python:3.11@{DIGEST} AS python\r\n"
        f"RUN --mount=from=tools:1@{OTHER},target=/a --mount=target=/b,from=tools:1@{OTHER} from=tools:1\n"
        f"COPY --from=tools:1@{OTHER} /x /x\n"
        "COPY --from=other:1 /x /x\n"
        "FROM python\udcff"
    )


def test_a_dockerfile_with_digests_names_no_image_any_more() -> None:
    text = "ARG V=1\nFROM a:$V AS x\nCOPY --from=b:${V:-2} . .\nFROM x\nRUN --mount=from=c true\n"
    references = [image.reference for image in dockerfile_images(text)]
    assert references == [f"{HUB}/a:1", f"{HUB}/b:2", f"{HUB}/c:latest"]
    pinned = with_digests(text, {reference or "": DIGEST for reference in references})
    assert dockerfile_images(pinned) == ()
