"""The bill of materials of an image: what lies in its layers, joined with the lock that lies there, too."""

from __future__ import annotations

from envbuild.attest.base import Bill
from envbuild.publish.base import Image
from envbuild.store.content import Store


def bill_of(image: Image, store: Store) -> Bill:
    """All packages inside ``image``, whose layers are in the store. Raises ``BuildError``."""
    raise NotImplementedError
