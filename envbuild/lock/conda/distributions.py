"""Which Python distributions conda packages bring, by their own ``dist-info``.

conda-lock's mapping of names is only to be had online and says no version, so it isn't asked: a package's
own list of files has both. What was read once is kept in the store by the package's hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from envbuild.errors import BuildError, FetchError
from envbuild.http.base import Download, Fetcher, RangeReader
from envbuild.lock.conda.listing import SkippingRangeReader, foresee_listing
from envbuild.lock.conda.satisfied import is_python_package, with_distributions
from envbuild.lock.model import CondaPin
from envbuild.platforms import Platform
from envbuild.store.content import Store
from envbuild.store.records import Records

DISTRIBUTIONS_FORMAT = 1
_REQUESTS = 16
"""Small requests at once."""
_WHOLE = 16 << 20
"""Bytes of an archive that is fetched for its list where a part of it doesn't do; a build needs it anyway."""


class CondaDistributions:
    """Reads the lists of packages, by ``fetcher``, and remembers them in ``store``."""

    def __init__(self, store: Store, fetcher: Fetcher) -> None:
        self._store = store
        self._fetcher = fetcher
        self._records = Records(store, "metadata/distributions")

    def identify(self, pins: Mapping[Platform, Sequence[CondaPin]]) -> dict[Platform, tuple[CondaPin, ...]]:
        """``pins`` with what is inside where their names don't say it. A package whose list can't be had (an
        offline run that never saw it, a large archive of the old format) stays as it is."""
        unread = {
            pin.sha256: pin
            for packages in pins.values()
            for pin in packages
            if is_python_package(pin) and not pin.distributions
        }
        inside = {sha256: self._records.get(sha256, _parse) for sha256 in unread}
        inside.update(self._read([unread[sha256] for sha256, known in inside.items() if known is None]))
        return {
            platform: tuple(with_distributions(pin, inside.get(pin.sha256) or {}) for pin in packages)
            for platform, packages in pins.items()
        }

    def _read(self, pins: Sequence[CondaPin]) -> dict[str, dict[str, str]]:
        """What the lists of ``pins`` say, by the packages' SHA-256."""
        if not pins:
            return {}
        fetcher = self._fetcher
        reach = SkippingRangeReader(fetcher) if isinstance(fetcher, RangeReader) else None

        def read(pin: CondaPin) -> dict[str, str] | None:
            listing = foresee_listing(pin, self._store.artifact(pin.sha256), reach)
            return None if listing is None else listing.distributions

        with ThreadPoolExecutor(max_workers=_REQUESTS) as pool:
            answers = dict(zip(pins, pool.map(read, pins), strict=True))
        whole = [pin for pin, answer in answers.items() if answer is None and 0 < pin.size <= _WHOLE]
        if self._fetch(whole):
            answers.update((pin, read(pin)) for pin in whole)
        known = {pin.sha256: answer for pin, answer in answers.items() if answer is not None}
        with self._store.scratch() as scratch:
            for sha256, answer in known.items():
                body = json.dumps({"format": DISTRIBUTIONS_FORMAT, "distributions": answer}, sort_keys=True)
                self._records.put(sha256, body, scratch / sha256)
        return known

    def _fetch(self, pins: Iterable[CondaPin]) -> bool:
        downloads = [
            Download(what=f"conda package {pin.name} {pin.version}", urls=(pin.url,), sha256=pin.sha256)
            for pin in pins
        ]
        try:
            self._fetcher.files(downloads)
        except (FetchError, BuildError):
            return False
        return bool(downloads)


def _parse(value: Any) -> dict[str, str] | None:
    if value["format"] != DISTRIBUTIONS_FORMAT:
        return None
    return {str(name): str(version) for name, version in value["distributions"].items()}
