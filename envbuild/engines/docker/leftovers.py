"""What a build leaves in a Docker engine if it doesn't end well, written down as it comes about.

Images of a failed build are removed at its end; those of a killed one, which has no end, by the next build.
As long as another build uses the same engine none is removed, because that one may be going on from them: the
build that ends last does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from envbuild.lazy import lazy
from envbuild.store.content import Store
from envbuild.store.locks import locked

if TYPE_CHECKING:
    import docker
else:
    docker = lazy("docker")

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,499}")


class Leftovers:
    """A build's list, for as long as the context lasts. Unless :meth:`keep` was called, all on it is removed
    on leaving, or by whoever is the last to leave."""

    def __init__(self, store: Store, client: docker.DockerClient) -> None:
        self._store = store
        self._client = client
        self._engine = hashlib.sha256(str(client.api.info().get("ID") or "").encode()).hexdigest()[:16]
        self._before: frozenset[str] = frozenset()
        self._path = Path()
        self._descriptor = -1

    def __enter__(self) -> Leftovers:
        with self._gate():
            self._sweep()
            self._path = self._directory / f"{self._engine}-{secrets.token_hex(8)}"
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        # Not before: what another build made just now is not ours to remove either.
        listed = self._client.api.images(all=True)
        self._before = frozenset(str(image["Id"]).removeprefix("sha256:") for image in listed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        with self._gate(), contextlib.suppress(OSError):
            self._sweep()

    def add(self, image: str) -> bool:
        """Notes an image that the build made (id, full or short, or name); False if the engine had it
        before."""
        if not _NAME.fullmatch(image) or _among(image, self._before):
            return False
        os.write(self._descriptor, f"{image}\n".encode())
        return True

    def keep(self) -> None:
        """Forgets the list: the build ended well."""
        os.ftruncate(self._descriptor, 0)

    @property
    def _directory(self) -> Path:
        return self._store.directory("metadata/docker")

    @contextmanager
    def _gate(self) -> Iterator[None]:
        with locked(self._store.root / "locks" / "docker-leftovers"):
            yield

    def _sweep(self) -> None:
        """Removes what the lists of ended builds name, if no build with this engine is under way."""
        with contextlib.ExitStack() as stack:
            ended: list[Path] = []
            for path in sorted(self._directory.glob(f"{self._engine}-*")):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                ended.append(path)
            images = [line for path in ended for line in reversed(path.read_text().splitlines())]
            left = list(dict.fromkeys(filter(_NAME.fullmatch, images)))
            # What has children goes after them, whichever list they are on.
            while left != (left := [image for image in left if not remove_image(self._client, image)]):
                pass
            for path in ended:
                path.unlink(missing_ok=True)


def remove_image(client: docker.DockerClient, image: str) -> bool:
    """Removes an image, but not its parents; False if it stays. One that has a tag, or that something is made
    from, does: an id names no tag, so whoever tagged it wants it. Raises ``OSError`` (all of requests' errors
    are one) where the engine can't be asked."""
    inspect = cast(Callable[[str], Mapping[str, Any]], client.api.inspect_image)
    try:
        if re.fullmatch(r"(?:sha256:)?[0-9a-f]{12,64}", image) and inspect(image).get("RepoTags"):
            return False
        client.api.remove_image(image, noprune=True)
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as error:
        _log.debug("the engine keeps %s: %s", image, error)
        return False
    return True


def _among(image: str, known: Collection[str]) -> bool:
    """Whether an id, maybe short, is one of those."""
    bare = image.removeprefix("sha256:")
    return bool(re.fullmatch(r"[0-9a-f]{12,64}", bare)) and any(
        identifier.startswith(bare) for identifier in known
    )
