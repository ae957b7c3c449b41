"""What the history and the manifest of an image tell of whether it is ours as it is."""

from __future__ import annotations

from typing import Any

import pytest

from envbuild.images.describe import layers_of_others
from envbuild.oci.digest import canonical_json, digest_bytes
from envbuild.oci.manifest import ConfigDocument

LOCK = digest_bytes(b"a lock")
OURS = [{"created_by": "envbuild", "comment": name} for name in ("base", "settings")]
LABEL = f"LABEL dev.envbuild.definition=x dev.envbuild.lock={LOCK}"
DOCKERFILE: list[dict[str, Any]] = [
    {"created_by": "COPY /opt/env /opt/env # buildkit"},
    {"created_by": LABEL, "empty_layer": True},
    {"created_by": "USER 1000:1000", "empty_layer": True},
    {"created_by": 'CMD ["python"]', "empty_layer": True},
]
RUN = {"created_by": "RUN /bin/sh -c touch /x # buildkit"}
ENV = {"created_by": "ENV A=b", "empty_layer": True}
MANIFEST = {"schemaVersion": 2, "annotations": {"dev.envbuild.lock": LOCK}}
NONE_OF_OURS = b'{"schemaVersion":2}'


def config(history: list[dict[str, Any]] | None, lock: str | None = LOCK, **more: str) -> ConfigDocument:
    labels = {**({"dev.envbuild.lock": lock} if lock else {}), **more}
    found: dict[str, Any] = {"config": {"Labels": labels}, "rootfs": {"diff_ids": ["a", "b"]}}
    return ConfigDocument(found if history is None else {**found, "history": history})


@pytest.mark.parametrize(
    ("history", "count"),
    [
        (OURS, None),
        ([RUN, *OURS], None),
        ([*OURS, RUN], 1),
        ([*OURS, ENV, RUN, RUN], 2),
        ([*OURS, ENV], 0),
        # A layer of code that envbuild put on top.
        ([*OURS, {"created_by": "envbuild", "comment": "code"}], None),
        ([*OURS, RUN, {"created_by": "envbuild", "comment": "code"}], None),
        # Of a rendered Dockerfile, whose own settings follow the labels.
        (DOCKERFILE, None),
        ([*DOCKERFILE, RUN], 1),
        ([{"created_by": f"/bin/sh -c #(nop)  {LABEL}", "empty_layer": True}, RUN], 1),
        # Nothing tells.
        ([RUN, RUN], None),
        ([], None),
        (None, None),
    ],
)
def test_layers_of_others(history: list[dict[str, Any]] | None, count: int | None) -> None:
    assert layers_of_others(NONE_OF_OURS, config(history)) == count
    assert layers_of_others(NONE_OF_OURS, config(history, lock=None)) is None


@pytest.mark.parametrize("history", [None, [], [RUN, RUN]])
def test_a_composed_image_without_its_history_was_made_anew_by_others(history: Any) -> None:
    level = {"dev.envbuild.level": "L3"}
    assert layers_of_others(NONE_OF_OURS, config(history, **level)) == 2
    assert layers_of_others(canonical_json(MANIFEST), config(history, **level)) is None
    # Another image as it is has the history of that one, and one that a Dockerfile gave is of another level.
    base = {"org.opencontainers.image.base.digest": LOCK}
    assert layers_of_others(NONE_OF_OURS, config(history, **level, **base)) is None
    assert layers_of_others(NONE_OF_OURS, config(history, **{"dev.envbuild.level": "L2"})) is None


@pytest.mark.parametrize(
    ("manifest", "ours"),
    [
        (canonical_json(MANIFEST), True),
        # As an engine writes it that takes annotations over from the base.
        (b'{"schemaVersion": 2, "annotations": {"dev.envbuild.lock": "%s"}}' % LOCK.encode(), False),
        (canonical_json({**MANIFEST, "annotations": {"dev.envbuild.lock": digest_bytes(b"other")}}), False),
        (canonical_json({**MANIFEST, "annotations": None}), False),
        (NONE_OF_OURS, False),
        (b"[]", False),
        (b"no JSON", False),
        (b"[" * 100_000, False),
    ],
)
def test_a_manifest_of_ours_is_proof_enough(manifest: bytes, ours: bool) -> None:
    assert layers_of_others(manifest, config([*OURS, RUN])) == (None if ours else 1)


@pytest.mark.parametrize("history", [{}, "x", [1, None], [{"created_by": 5}, {"created_by": ["envbuild"]}]])
def test_a_history_of_strangers_is_no_error(history: Any) -> None:
    assert layers_of_others(NONE_OF_OURS, config(history)) is None
