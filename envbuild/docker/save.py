"""An image that a Docker engine has, as the archive that ``docker save`` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from envbuild.docker.client import NoEngine, connect
from envbuild.docker.stream import engine_errors
from envbuild.errors import BuildError, FetchError
from envbuild.progress import Progress


def save_image(environ: Mapping[str, str], name: str, file: Path, progress: Progress) -> None:
    """Writes the engine's image ``name`` (or id) to ``file``. Raises ``FetchError``."""
    client = connect(environ)
    if isinstance(client, NoEngine):
        raise FetchError(f"docker-daemon:{name}: {client.reason}", hint=client.hint)
    try:
        with engine_errors():
            inspect = cast(Callable[[str], Mapping[str, Any]], client.api.inspect_image)
            size = int(inspect(name).get("Size") or 0)
            pieces = cast(Iterator[bytes], client.api.get_image(name))
            with progress.task("import", "the image", total=size) as task, file.open("wb") as sink:
                for piece in pieces:
                    sink.write(piece)
                    task.advance(len(piece))
    except BuildError as error:
        raise FetchError(f"docker-daemon:{name}: {error.message}", hint=error.hint) from error
    finally:
        client.close()
