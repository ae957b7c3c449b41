"""Which names several package indexes offer (dependency confusion), asked of the indexes themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from envbuild.app.session import Session
from envbuild.app.specs import inputs_of
from envbuild.compose.artifacts.wheel.index import IndexLogins, PackageIndexes
from envbuild.errors import FetchError, LockError, UsageError
from envbuild.http.address import local_path, shown
from envbuild.http.base import RequestFailed
from envbuild.http.transport import Transport
from envbuild.lock.files import read_lock
from envbuild.lock.pip.package_index import own_indexes
from envbuild.render.access import index_addresses
from envbuild.specs.importers.pip.requirement import name_of
from envbuild.specs.model import Spec

_PARALLEL = 8


def offered_names(session: Session, spec: Spec, directory: Path) -> dict[str, tuple[str, ...]]:
    """The names that more than one index has, with these in the order they are asked: of all that ``spec``
    requires and the lock in ``directory`` pins, but for what has an index or an address of its own.

    Raises ``FetchError`` for an index that can't be asked."""
    if session.settings.offline:
        raise UsageError("the indexes can't be asked offline", hint="leave out --online or --offline")
    options = inputs_of(spec).pip_options
    indexes = index_addresses(session.environ, options)
    if len(indexes) < 2:
        return {}
    own = own_indexes(spec.pip.indexes, None)
    asked = {name_of(line.text) for line in spec.pip.requirements if " @ " not in line.text}
    with suppress(LockError):  # What is wrong with a lock is another finding.
        lock = read_lock(directory)
        pins = (pin for platform in (lock.platforms if lock else ()) for pin in platform.pip)
        asked |= {pin.name for pin in pins if not pin.url}
    names = sorted(asked - own.keys())
    logins = IndexLogins(PackageIndexes(env=session.environ, options=options))
    access = logins.host_access()
    transport = Transport(ca_bundle=session.settings.ca_bundle, parallel=_PARALLEL, environ=session.environ)

    def has(place: tuple[str, str]) -> bool:
        index, name = place
        page = f"{index.rstrip('/')}/{name}/"
        directory = local_path(index)
        if directory is not None:
            return (directory / name).is_dir()
        try:
            with transport.get(logins.add_login(page), access=access):
                return True
        except RequestFailed as error:
            if error.gone:
                return False
            raise FetchError(f"can't ask {shown(page)}: {error.reason}", hint=error.hint) from error

    places = [(index, name) for name in names for index in indexes]
    with closing(transport), ThreadPoolExecutor(_PARALLEL) as pool:
        offers = [place for place, there in zip(places, pool.map(has, places), strict=True) if there]
    by_name: dict[str, list[str]] = {}
    for index, name in offers:
        by_name.setdefault(name, []).append(shown(index))
    return {name: tuple(having) for name, having in by_name.items() if len(having) > 1}
