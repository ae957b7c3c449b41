"""What an image's config and manifest say, and how two of them differ, key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from envbuild.inspect.model import Value
from envbuild.oci.image import Image
from envbuild.oci.manifest import CONFIG_LIMIT, MANIFEST_LIMIT
from envbuild.store.content import Store

CREATED = "org.opencontainers.image.created"
_DEPTH = 12


def config_of(image: Image, store: Store) -> dict[str, Any]:
    """The image's whole config document."""
    return _object(store, image.config_digest, CONFIG_LIMIT)


def manifest_of(image: Image, store: Store) -> dict[str, Any]:
    """The image's manifest."""
    return _object(store, image.digest, MANIFEST_LIMIT)


def settings_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inner ``config`` object of a config document."""
    inner = config.get("config")
    return inner if isinstance(inner, dict) else {}


def variables(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables of an inner ``config``."""
    return dict(str(text).partition("=")[::2] for text in texts(config.get("Env")))


def texts(value: object) -> tuple[str, ...]:
    """A list of text, as which Docker may also write a single one, or nothing."""
    if isinstance(value, str):
        return (value,)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def annotations_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The annotations of a manifest that are text."""
    annotations = manifest.get("annotations")
    items = annotations.items() if isinstance(annotations, dict) else ()
    return {str(key): value for key, value in items if isinstance(value, str)}


def created_seconds(text: str) -> int | None:
    """A time of RFC 3339 as whole seconds since the epoch; None where it is none."""
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return int(time.timestamp()) if time.tzinfo is not None else None
    except (ValueError, OverflowError, OSError):
        return None


def value_differences(before: Any, after: Any) -> tuple[Value, ...]:
    """Every key whose value differs, by its path (``config.Env.PATH``), sorted."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return tuple(
        (key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def _flat(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value and depth < _DEPTH:
        for key, entry in value.items():
            yield from _flat(entry, f"{path}.{key}" if path else str(key), depth + 1)
    elif path.endswith("config.Env") or path == "Env":
        for item in texts(value):
            name, _, content = item.partition("=")
            yield f"{path}.{name}", content
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _object(store: Store, digest: str, limit: int) -> dict[str, Any]:
    with store.blob(digest).open("rb") as file:
        document = json.loads(file.read(limit))
    return document if isinstance(document, dict) else {}
