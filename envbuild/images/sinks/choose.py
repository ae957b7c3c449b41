"""The sink that an ``-o`` argument means."""

from __future__ import annotations

from pathlib import Path

from envbuild.errors import UsageError
from envbuild.images.sinks.archive import DockerArchiveSink, OciArchiveSink
from envbuild.images.sinks.base import Sink
from envbuild.images.sinks.layout import LayoutSink
from envbuild.progress import Progress
from envbuild.store.content import Store

FORMS = ("oci:DIR", "oci-archive:FILE", "docker-archive:FILE")


def output_sink(output: str, store: Store, progress: Progress) -> Sink[str]:
    """The sink for ``oci:DIR``, ``oci-archive:FILE`` or ``docker-archive:FILE``. Touches no file.

    Raises ``UsageError`` for another form, or where the place can't be one of that kind."""
    scheme, colon, where = output.partition(":")
    if not colon or not where or scheme not in {form.partition(":")[0] for form in FORMS}:
        raise UsageError(f"not an output: {output!r}", hint=f"known outputs: {', '.join(FORMS)}")
    path = Path(where)
    if scheme == "oci":
        if path.exists() and not path.is_dir():
            raise UsageError(f"{output!r}: {path} is a file, a layout needs a directory")
        return LayoutSink(path, store, progress)
    if path.is_dir() or where.endswith("/"):
        raise UsageError(f"{output!r}: {path} is a directory, an archive needs a file")
    if scheme == "oci-archive":
        return OciArchiveSink(path, store, progress)
    return DockerArchiveSink(path, store, progress)
